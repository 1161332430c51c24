"""The calibration text: cut as a naive loop cuts, rendered as transformers renders, or refused."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from glm_export.calibration.corpus import Corpus, read_corpus
from glm_export.calibration.documents import find_files, read_documents
from glm_export.errors import CheckpointError, OptionsError
from support.refusals import assert_sentence, nothing_left_behind
from support.tiny_models import TEMPLATE, build_tokenizer

SAMPLE = Path(__file__).parents[3] / "artifacts" / "glm4-sample"
SAMPLE_VOCAB, TINY_VOCAB = 4224, 320
DATA = resources.files("glm_export").joinpath("data")
UNLIMITED = 1 << 40
CHAT = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "我。"}]
RENDERED = "[gMASK]<sop><|user|>\nWho?<|assistant|>\n我。"  # by hand, from TEMPLATE


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A `checkpoint` with the byte tokenizer and a template; without weights, which none needs."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    build_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path


def write_text(root: Path, text: str, name: str = "text.txt") -> Path:
    path = root / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def write_lines(root: Path, *entries: object) -> Path:
    lines = (json.dumps(entry, ensure_ascii=False) for entry in entries)
    return write_text(root, "\n".join(lines) + "\n", "lines.jsonl")


def read(root: Path, path: Path | None, window: int = 4, max_tokens: int = UNLIMITED) -> Corpus:
    return read_corpus(path, root / "checkpoint", window, max_tokens, TINY_VOCAB)


def read_ids(root: Path, path: Path | None) -> list[int]:
    """All token ids of a text: windows of a single token leave none out."""
    return list(read(root, path, window=1).windows[:, 0])


def encode(text: str) -> list[int]:
    return build_tokenizer().encode(text, add_special_tokens=False).ids


def refuse(root: Path, path: Path | None, kind: type[Exception], *words: str) -> None:
    with nothing_left_behind(root), pytest.raises(kind) as caught:
        read(root, path)
    assert caught.type is kind
    assert_sentence(str(caught.value), *words)


# --- windows


@pytest.mark.parametrize("window", [1, 3, 7, 64])
def test_windows_are_slices_of_the_joined_ids(root: Path, window: int) -> None:
    path = write_lines(root, {"text": "In the beginning"}, {"messages": CHAT}, {"text": "太初" * 9})
    ids = encode("In the beginning") + encode(RENDERED) + encode("太初" * 9)
    naive = []
    for start in range(0, len(ids), window):
        if start + window <= len(ids):
            naive.append(ids[start : start + window])
    corpus = read(root, path, window)
    assert corpus.windows.tolist() == naive
    assert corpus.windows.dtype == np.int64
    assert corpus.windows.shape == (len(ids) // window, window)


@pytest.mark.parametrize(("whole", "count"), [(10, 10), (10, 9), (10, 3), (97, 32), (5, 1)])
def test_a_longer_text_gives_evenly_spread_windows(root: Path, whole: int, count: int) -> None:
    path = write_text(root, "".join(f"{index:04}" for index in range(whole)) + "xyz")
    corpus = read(root, path, 4, max_tokens=4 * count + 3)
    decode = build_tokenizer().decode
    chosen = [int(decode(list(row))) for row in corpus.windows]
    assert len(chosen) == count
    gaps = np.diff([*chosen, whole])  # the last one stands for all up to the end
    assert chosen[0] == 0
    assert gaps.max() - gaps.min() <= 1
    assert read(root, path, 4, max_tokens=4 * count + 3).sha256 == corpus.sha256


def test_the_hash_is_of_the_window_and_the_ids(root: Path) -> None:
    path = write_text(root, "abcdefgh")
    for window in (2, 4):
        numbers = (window, *encode("abcdefgh"))
        expected = hashlib.sha256(struct.pack(f"<{len(numbers)}q", *numbers)).hexdigest()
        assert read(root, path, window).sha256 == expected


@pytest.mark.parametrize(("window", "limit"), [(0, 10), (8, 7)])
def test_sizes_that_leave_nothing(root: Path, window: int, limit: int) -> None:
    path = write_text(root, "abcdefgh" * 4)
    with pytest.raises(OptionsError) as caught:
        read(root, path, window, limit)
    assert_sentence(str(caught.value), f"windows of {window} tokens", f"at most {limit} tokens")


# --- files


def test_a_text_file_is_one_document_as_it_stands(root: Path) -> None:
    assert read_ids(root, write_text(root, "a\r\nb\n\n")) == encode("a\r\nb\n\n")
    assert read_ids(root, write_text(root, "\ufeff太初")) == encode("太初")  # Windows' mark


def test_lines_end_at_line_feeds_only(root: Path) -> None:
    """Python's `splitlines` would cut the JSON of the first line in two."""
    content = (
        '\ufeff{"text": "a\u2028b\x85"}\r\n\n  \n{"text": "", "messages": null}\n{"text": "c"}'
    )
    path = write_text(root, content, "lines.jsonl")
    assert read_ids(root, path) == encode("a\u2028b\x85") + encode("c")


def test_a_folder_is_read_in_sorted_order(root: Path) -> None:
    write_text(root, '{"text": "3"}', "texts/b/a.JSONL")
    write_text(root, "1", "texts/a.txt")
    write_text(root, "2", "texts/b.txt/x.TXT")
    write_text(root, "4", "texts/c.txt")
    write_text(root, "no text", "texts/a.md")
    write_text(root, "", "texts/empty.json")
    path = root / "texts"
    assert read_ids(root, path) == encode("1324")
    assert read(root, path).name == "texts"


def test_names_tell_nothing_of_the_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(root, "abcd", "texts/a.txt")
    assert read(root, path).name == "a.txt"
    monkeypatch.chdir(root / "texts")
    assert read(root, Path()).name == "texts"


# --- conversations


def test_messages_are_rendered_by_the_template(root: Path) -> None:
    assert read_ids(root, write_lines(root, {"messages": CHAT})) == encode(RENDERED)


def conversations() -> Iterator[dict[str, Any]]:
    tool = {"type": "function", "function": {"name": "查", "parameters": {"html": "<b>&'"}}}
    call = {"function": {"name": "查", "arguments": {"城": [1, 2.5, None]}}}
    yield {"messages": CHAT}
    yield {"messages": [{"role": "system", "content": "简短。"}, *CHAT, CHAT[0]]}
    yield {"messages": [CHAT[0], {"role": "assistant", "tool_calls": [call]}], "tools": [tool]}
    yield {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    default = DATA.joinpath("calibration.jsonl").read_text(encoding="utf-8")
    yield from (entry for line in default.splitlines() if "messages" in (entry := json.loads(line)))


def test_messages_are_rendered_as_transformers_renders_them(tmp_path: Path) -> None:
    """With the sample's template: tools, calls of tools, contents in parts, no answer begun."""
    entries = list(conversations())
    template = (SAMPLE / "chat_template.jinja").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(SAMPLE / "tokenizer.json"))
    expected: list[int] = []
    for entry in entries:
        rendered, _ = render_jinja_template(
            [entry["messages"]],
            tools=entry.get("tools"),
            chat_template=template,
            add_generation_prompt=False,
        )
        expected += tokenizer.encode(rendered[0], add_special_tokens=False).ids
    corpus = read_corpus(write_lines(tmp_path, *entries), SAMPLE, 1, UNLIMITED, SAMPLE_VOCAB)
    assert corpus.windows[:, 0].tolist() == expected
    assert len(entries) > 40


def test_a_checkpoint_without_template(root: Path) -> None:
    (root / "checkpoint" / "chat_template.jinja").unlink()
    path = write_lines(root, {"text": "as before"}, {"messages": CHAT})
    words = (f"{path}, line 2: the checkpoint has no chat template", "give `text`, or add")
    refuse(root, path, OptionsError, *words)
    assert read_ids(root, write_lines(root, {"text": "as before"})) == encode("as before")


def test_a_template_that_refuses(root: Path) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no\nsystem') }}{% endif %}"
    (root / "checkpoint" / "chat_template.jinja").write_text(source + "abcdefgh")
    path = write_lines(root, {"messages": CHAT}, {"messages": [{"role": "system", "content": ""}]})
    words = (f"{path}, line 2: this cannot be converted to tokens (no system); correct it, or the",)
    refuse(root, path, OptionsError, *words)


# --- what is refused


def both(root: Path, path: Path, *words: str) -> None:
    """Refused with the same words before anything slow."""
    refuse(root, path, OptionsError, *words)
    with pytest.raises(OptionsError) as caught:
        find_files(path)
    assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize("name", ["none.txt", "none", "none.pdf", "x" * 300 + ".txt"])
def test_a_path_where_nothing_is(root: Path, name: str) -> None:
    both(root, root / name, f"{name} cannot be read (", "give a UTF-8 .txt or .jsonl file")


def test_unknown_suffixes(root: Path) -> None:
    path = write_text(root, "abcd", "text.md")
    both(root, path, "text.md ends in '.md' where .txt or .jsonl is expected", "rename it")
    path = write_text(root, "abcd", "text")
    both(root, path, "text ends in 'nothing' where .txt or .jsonl is expected")


def test_empty_files(root: Path) -> None:
    both(root, write_text(root, ""), "text.txt is empty", "fill it")
    both(root, write_text(root, "", "lines.jsonl"), "lines.jsonl is empty", "fill it")
    write_text(root, "abcd", "texts/a.txt")
    write_text(root, "", "texts/b.txt")
    both(root, root / "texts", "b.txt is empty; remove it")


def test_a_folder_without_texts(root: Path) -> None:
    write_text(root, "abcd", "texts/a.md")
    both(root, root / "texts", "texts has no .txt and no .jsonl file", "with at least one")


def test_sound_paths_pass_the_check(root: Path) -> None:
    find_files(write_text(root, "abcd", "texts/a.txt"))
    find_files(root / "texts")


def test_a_file_that_disappears(root: Path) -> None:
    write_text(root, "abcd", "texts/a.txt")
    last = write_text(root, "abcd", "texts/b.txt")
    documents = read_documents(root / "texts")
    next(documents)
    last.unlink()
    with pytest.raises(OptionsError) as caught:
        next(documents)
    assert_sentence(str(caught.value), "b.txt cannot be read (", "check its permissions")


@pytest.mark.parametrize("name", ["text.txt", "text.jsonl"])
@pytest.mark.parametrize(
    ("content", "place"), [(b"abc \xff def", 4), ("\ufeffé".encode()[:-1], 3), (b"\xfe\xff\0a", 0)]
)
def test_other_encodings(root: Path, name: str, content: bytes, place: int) -> None:
    path = root / name
    path.write_bytes(content)
    refuse(root, path, OptionsError, f"{path} is not UTF-8 at byte {place} (", "convert it first")


def chat(*messages: object) -> str:
    return json.dumps({"messages": messages})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "this is not JSON (Expecting value"),
        ('{"text": "a"', "this is not JSON ("),
        pytest.param("[" * 200_000, "this is not JSON (", id="deep"),
        pytest.param("1" * 5000, "this is not JSON (", id="long"),
        ("[1]", "this is a list; an object with `text`"),
        ('"text"', "this is a string"),
        ("null", "this is null"),
        ("{}", "this has neither `text` nor `messages`; an object with `text`"),
        ('{"content": "a"}', "this has neither `text` nor `messages`"),
        ('{"text": "a", "messages": []}', "this has both `text` and `messages`"),
        ('{"text": 5}', "`text` is a number"),
        ('{"text": ["a"]}', "`text` is a list"),
        ('{"messages": "a"}', "`messages` is a string"),
        ('{"messages": {"role": "user"}}', "`messages` is an object"),
        (chat(), "`messages` is empty"),
        (chat(CHAT[0], "a"), "messages[1] is a string"),
        (chat({"content": "a"}), "messages[0] has no role"),
        (chat({"role": "", "content": "a"}), "messages[0] has the role ''"),
        (chat({"role": 1, "content": "a"}), "messages[0] has the role 1"),
        (chat({"role": "user"}), "messages[0] has no content"),
        (chat({"role": "user", "content": True}), "messages[0] has true or false as content"),
        (json.dumps({"messages": CHAT, "tools": "f"}), "`tools` is not a list of objects"),
        (json.dumps({"messages": CHAT, "tools": ["f"]}), "`tools` is not a list of objects"),
        ('{"text": "\\ud800"}', "this cannot be converted to tokens ("),
    ],
)
def test_broken_lines(root: Path, line: str, words: str) -> None:
    path = write_text(root, f'{{"text": "a sound line"}}\n\n{line}\n', "lines.jsonl")
    refuse(root, path, OptionsError, f"{path}, line 3: {words}")


@pytest.mark.parametrize(
    ("name", "content", "tokens"),
    [("a.txt", "abc", 3), ("a.jsonl", '{"text": "ab"}\n{"text": "c"}', 3), ("a.jsonl", "\n", 0)],
)
def test_texts_shorter_than_one_window(root: Path, name: str, content: str, tokens: int) -> None:
    path = write_text(root, content, name)
    words = (f"{path} has {tokens} tokens but one window has 4", "give a longer text")
    refuse(root, path, OptionsError, *words)


# --- the checkpoint


def test_ids_beyond_the_vocabulary(root: Path) -> None:
    path = write_text(root, "abcd<|assistant|>")
    assert read_corpus(path, root / "checkpoint", 4, UNLIMITED, 262).windows.shape == (1, 4)
    with pytest.raises(CheckpointError) as caught:
        read_corpus(path, root / "checkpoint", 4, UNLIMITED, 261)
    words = ("tokenizer.json gives the id 261 but config.json says vocab_size=261", "revision")
    assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "tokenizer.json").unlink(), ("no tokenizer.json and no", "fast form")),
        (
            lambda c: (c / "tokenizer.json").write_text("{}"),
            ("tokenizer.json cannot be loaded by the tokenizers package (", "download it again"),
        ),
        (
            lambda c: (c / "chat_template.jinja").write_text("{% if %}"),
            ("the chat template of", "cannot be read (", "download it again"),
        ),
        (
            lambda c: (c / "chat_template.jinja").write_bytes(b"\xff"),
            ("the chat template of", "cannot be read (", "download it again"),
        ),
        (
            lambda c: swap_template(c, "{"),
            ("the chat template of", "cannot be read (", "download it again"),
        ),
    ],
)
def test_broken_checkpoints(
    root: Path, damage: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    damage(root / "checkpoint")
    refuse(root, write_text(root, "abcdefgh"), CheckpointError, *words)


def swap_template(checkpoint: Path, config: str) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    (checkpoint / "tokenizer_config.json").write_text(config)
