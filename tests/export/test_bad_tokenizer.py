"""Bad tokenizers, token ids, templates and small files through a whole export."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from glm_export import ExportOptions, export
from glm_export.errors import (
    CheckpointError,
)
from support.broken_checkpoints import (
    build_tokenizer_json,
    edit_config,
    edit_json,
    write_json,
    write_small,
)
from support.refusals import (
    Damage,
    refuse,
)

# A valid pattern that gives up on a run of letters `a`, by a panic of the library in Rust.
FRAGILE = {
    "type": "Split",
    "pattern": {"Regex": "(a+)+c"},
    "behavior": "Isolated",
    "invert": False,
}


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: (c / "tokenizer.json").unlink(), ("no tokenizer.json and no", "fast form")),
        (lambda c: (c / "tokenizer.json").write_text("{"), ("tokenizer.json cannot be loaded by",)),
        (
            lambda c: edit_json(c / "tokenizer.json", pre_tokenizer=FRAGILE),
            ("tokenizer.json cannot be loaded by the tokenizers package (Onig: Regex",),
        ),
        (lambda c: write_json(c / "tokenizer.json", {}), ("tokenizer.json cannot be loaded by",)),
        (
            lambda c: edit_json(c / "tokenizer.json", model={"type": "BPE", "vocab": {"a": -1}}),
            ("tokenizer.json cannot be loaded by the tokenizers package (",),
        ),
        (
            lambda c: edit_json(
                c / "tokenizer.json",
                model={"type": "BPE", "vocab": {}, "merges": []},
                added_tokens=[],
            ),
            ("tokenizer.json has no tokens", "download it again"),
        ),
        (
            lambda c: write_json(c / "tokenizer.json", grow_vocabulary()),
            ("tokenizer.json has ids up to 320", "vocab_size=320", "the same revision"),
        ),
        (
            lambda c: write_json(c / "tokenizer.json", add_token(300)),
            ("tokenizer.json says that '<far>' has the id 300 where 260 is next", "download it"),
        ),
        (
            lambda c: write_json(c / "tokenizer.json", add_token(320)),
            ("tokenizer.json has ids up to 320", "vocab_size=320", "the same revision"),
        ),
        (
            lambda c: write_json(c / "tokenizer.json", add_tokens(61)),
            ("tokenizer.json has ids up to 320", "vocab_size=320", "the same revision"),
        ),
        (
            lambda c: use_ranks(c, 321),
            ("tokenizer.model has ids up to", "vocab_size=320", "the same revision"),
        ),
        (lambda c: edit_config(c, eos_token_id=None), ("eos_token_id is missing", "add it to")),
        (lambda c: edit_config(c, eos_token_id=[]), ("eos_token_id is missing", "add it to")),
        (lambda c: edit_config(c, eos_token_id=320), ("eos_token_id is 320", "vocab_size=320")),
        (lambda c: edit_config(c, eos_token_id=[256, -1]), ("eos_token_id is [256, -1]",)),
        (lambda c: edit_config(c, eos_token_id="</s>"), ("eos_token_id is '</s>'",)),
        (lambda c: edit_config(c, eos_token_id=[True]), ("eos_token_id is [True]",)),
        (lambda c: edit_config(c, pad_token_id=-1), ("pad_token_id is -1", "vocab_size=320")),
        (lambda c: edit_config(c, bos_token_id=999), ("bos_token_id is 999", "vocab_size=320")),
        (
            lambda c: write_json(c / "generation_config.json", {"eos_token_id": [999]}),
            ("eos_token_id is [999]", "correct generation_config.json or config.json"),
        ),
    ],
)
def test_tokens(tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    refuse(tmp_path, damage, CheckpointError, *words)


def add_token(id_: int) -> dict[str, Any]:
    """The tokenizers package would give it 260 without a word: all texts with it would be wrong."""
    tokenizer = build_tokenizer_json()
    tokenizer["added_tokens"].append(
        {**tokenizer["added_tokens"][0], "id": id_, "content": "<far>"}
    )
    return tokenizer


def add_tokens(count: int) -> dict[str, Any]:
    tokenizer = build_tokenizer_json()
    one = tokenizer["added_tokens"][0]
    tokenizer["added_tokens"] += [
        {**one, "id": 260 + number, "content": f"<{number}>"} for number in range(count)
    ]
    return tokenizer


def use_ranks(checkpoint: Path, count: int) -> None:
    """tiktoken's file in place of tokenizer.json, without templates: bytes, then pairs of them."""
    (checkpoint / "tokenizer.json").unlink()
    tokens = [bytes([n]) for n in range(256)] + [b"a" + bytes([n]) for n in range(count - 256)]
    lines = [b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    (checkpoint / "tokenizer.model").write_bytes(b"".join(lines))


def grow_vocabulary() -> dict[str, Any]:
    tokenizer = build_tokenizer_json()
    tokenizer["model"]["vocab"]["beyond"] = 320
    return tokenizer


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda c: (c / "chat_template.jinja").write_bytes(b"\xff\xfe"),
            ("chat_template.jinja is not readable UTF-8 (", "download it again"),
        ),
        (
            lambda c: (c / "tokenizer_config.json").write_text("{"),
            ("tokenizer_config.json is not readable JSON",),
        ),
        (
            lambda c: (c / "generation_config.json").write_text("[]"),
            ("generation_config.json does not hold a JSON object",),
        ),
        (
            lambda c: edit_json(c / "generation_config.json", temperature=float("nan")),
            ("generation_config.json has a value that is not JSON in UTF-8 (",),
        ),
        (
            lambda c: (c / "tokenizer_config.json").write_text('{"eos_token": "\\ud83d"}'),
            ("tokenizer_config.json has a value that is not JSON in UTF-8 (", "surrogates"),
        ),
    ],
)
def test_small_files(tmp_path: Path, damage: Damage, words: tuple[str, ...]) -> None:
    refuse(tmp_path, damage, CheckpointError, *words)


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("from the config", b"from the config"),
        ([{"name": "default", "template": "d"}, {"name": "rag", "template": "r"}], b"d"),
        (None, None),
    ],
)
def test_templates_in_tokenizer_config(
    tmp_path: Path, template: object, expected: bytes | None
) -> None:
    """Not bad input, but once read as none: transformers 4 saved several templates as a list."""
    checkpoint = write_small(tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").unlink()
    edit_json(checkpoint / "tokenizer_config.json", chat_template=template)
    export(ExportOptions(checkpoint, tmp_path / "out", method="rtn", verify="none"))
    path = tmp_path / "out" / "chat_template.jinja"
    assert (path.read_bytes() if path.exists() else None) == expected


HOSTILE = "the checkpoint's chat template does something that is not allowed ("
BROKEN = "the checkpoint's chat template is not Jinja that can be compiled ("


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("place", ["file", "config"])
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__.__mro__ }}", (HOSTILE, "'__class__'", "do not trust")),
        ("{{ cycler.__init__.__globals__ }}", (HOSTILE, "'__init__'", "or remove it")),
        ("{{ 'a' * 10**10 }}", (HOSTILE, "longer than")),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            (HOSTILE, "more than 500000 steps"),
        ),
        ("{% if %}", (BROKEN, "correct it in chat_template.jinja or tokenizer_config.json")),
        ("{% nonsense %}", (BROKEN, "unknown tag 'nonsense'")),
    ],
)
def test_templates(tmp_path: Path, place: str, template: str, words: tuple[str, ...]) -> None:
    """One question is rendered before anything slow begins."""
    refuse(tmp_path, lambda c: put_template(c, place, template), CheckpointError, *words)


def put_template(checkpoint: Path, place: str, template: str) -> None:
    if place == "file":
        (checkpoint / "chat_template.jinja").write_text(template)
        return
    (checkpoint / "chat_template.jinja").unlink()
    edit_json(checkpoint / "tokenizer_config.json", chat_template=template)


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('this model needs a system message') }}",
        "{{ messages[1].content }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_may_refuse_one_question(tmp_path: Path, template: str) -> None:
    """It may want a system message or a tool: no reason to withhold the folder."""
    checkpoint = write_small(tmp_path / "checkpoint")
    (checkpoint / "chat_template.jinja").write_text(template)
    export(ExportOptions(checkpoint, tmp_path / "out", method="rtn", verify="none"))
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template
