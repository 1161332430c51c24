"""A tokenizer.model becomes a tokenizer.json that gives the same ids, by the original packages."""

import base64
import io
import json
import random
from pathlib import Path

import pytest
import sentencepiece
import tiktoken
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from glm_export.errors import CheckpointError, UnsupportedModelError
from glm_export.tokenizer.files import choose_template, read_tokenizer_json
from glm_export.tokenizer.from_tiktoken import _PATTERN, convert_tiktoken
from glm_runtime.text.chat_messages import ChatOptions
from glm_runtime.text.chat_template import ChatTemplate
from support.property_tests import examples

DATA = Path(__file__).parents[2] / "export" / "glm_export" / "data"
TEXT = (DATA / "evaluation.txt").read_text(encoding="utf-8")
CALIBRATION = (DATA / "calibration.jsonl").read_text(encoding="utf-8")
ODD = (
    "",
    " ",
    "\n",
    "  two  spaces ",
    "\t tab\r\n\r\n  and lines \n",
    "1234567890 12 3.14159 ４５６",
    "emoji 🙂👩‍👩‍👧‍👦🏳️‍🌈 flags 🇨🇳",
    "混合 English 和中文，标点。『』",
    "control \x00\x01\x1f\x7f\x85\u200b\ufeff",
    "I'll we've IT'S don't",
    "naïve café Ünïcödé ﬁ ligature Ａ",
    "עברית العربية हिन्दी ไทย",
    "a" * 300,
    "\U0010ffff\ud7ff\ue000",
    "▁ lower block ▁▁ x",
    b"broken \xff\xfe\x80 utf-8 \xe4\xb8".decode("utf-8", "replace"),
    "<s> </s> <unk> <0x41>",
)
ANY_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


def draw_pieces() -> list[str]:
    """Lines of both texts, and cuts of them at any place."""
    rng = random.Random(0)
    lines = [*TEXT.splitlines(), *CALIBRATION.splitlines()[:200]]
    cuts = [TEXT[start : start + rng.randrange(400)] for start in rng.sample(range(len(TEXT)), 400)]
    return [*lines, *cuts, *ODD]


@pytest.fixture(scope="module")
def ranks() -> dict[bytes, int]:
    """As a trained tokenizer has them: the bytes, then what was joined, in that order."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(CALIBRATION.splitlines(), trainer)
    spelled = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in visible}
    hidden = [byte for byte in range(256) if byte not in visible]
    letters |= {chr(256 + place): byte for place, byte in enumerate(hidden)}
    return {bytes(letters[c] for c in name): rank for rank, (name, _) in enumerate(spelled)}


@pytest.fixture(scope="module")
def tiktoken_model(ranks: dict[bytes, int]) -> bytes:
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items())
    return b"".join(lines)


@pytest.fixture(scope="module")
def from_tiktoken(tiktoken_model: bytes) -> Tokenizer:
    return Tokenizer.from_str(convert_tiktoken(tiktoken_model, {}))


@pytest.fixture(scope="module")
def original(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding("glm", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def test_tiktoken_ids_are_the_same(from_tiktoken: Tokenizer, original: tiktoken.Encoding) -> None:
    for text in draw_pieces():
        ids = encode(from_tiktoken, text)
        assert ids == original.encode_ordinary(text), text
        assert from_tiktoken.decode(ids) == text


@given(text=ANY_TEXT)
@examples(500)
def test_any_text_has_tiktokens_ids(
    from_tiktoken: Tokenizer, original: tiktoken.Encoding, text: str
) -> None:
    added = from_tiktoken.get_added_tokens_decoder().values()
    assume(not any(token.content in text for token in added))
    assert encode(from_tiktoken, text) == original.encode_ordinary(text)


def test_glm4s_special_tokens_follow_the_ranks(
    from_tiktoken: Tokenizer, ranks: dict[bytes, int]
) -> None:
    names = ("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>")
    found = [from_tiktoken.token_to_id(name) - len(ranks) for name in names]
    assert found == list(range(7))
    ids = encode(from_tiktoken, "[gMASK]<sop><|user|>\nhi")
    assert [i - len(ranks) for i in ids[:3]] == [2, 4, 7]


def test_added_tokens_are_those_of_the_config(
    tiktoken_model: bytes, ranks: dict[bytes, int]
) -> None:
    count = len(ranks)
    config = {
        "added_tokens_decoder": {
            str(count): {"content": "<|end|>", "special": True},
            str(count + 1): {"content": "<think>", "special": False},
        }
    }
    tokenizer = Tokenizer.from_str(convert_tiktoken(tiktoken_model, config))
    assert encode(tokenizer, "<think>a<|end|>")[::2] == [count + 1, count]
    assert tokenizer.decode([count, count + 1], skip_special_tokens=True) == "<think>"
    config["added_tokens_decoder"][str(count + 3)] = {"content": "<gap>"}
    with pytest.raises(CheckpointError, match=f"the id {count + 3} where {count + 2} is next"):
        convert_tiktoken(tiktoken_model, config)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines[5:], "in line 1 where a token in base64 and its rank 0"),
        (lambda lines: [*lines[:9], b"?? 9", *lines[10:]], "in line 10 where"),
        (lambda lines: [*lines[:9], lines[8].split()[0] + b" 9"], "lacks the token of some byte"),
        (lambda lines: [*lines[:9], b"x", *lines[10:]], "in line 10 where"),
    ],
)
def test_broken_ranks_are_named(tiktoken_model: bytes, damage, words: str) -> None:
    content = b"\n".join(damage(tiktoken_model.splitlines()))
    with pytest.raises(CheckpointError, match=words):
        convert_tiktoken(content, {})


def train_sentencepiece(**choices: object) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in CALIBRATION.splitlines() if len(line) < 3000),
        model_writer=model,
        vocab_size=3000,
        model_type=choices.pop("model_type", "bpe"),
        byte_fallback=choices.pop("byte_fallback", True),
        character_coverage=0.995,
        minloglevel=2,
        **choices,
    )
    return model.getvalue()


CHOICES = (
    {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    {"normalization_rule_name": "nmt_nfkc"},
    {
        "normalization_rule_name": "identity",
        "add_dummy_prefix": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "remove_extra_whitespaces": False,
    },
)


@pytest.fixture(scope="module", params=CHOICES, ids=["identity", "nfkc", "no prefix"])
def sentencepiece_model(request: pytest.FixtureRequest) -> bytes:
    return train_sentencepiece(**request.param)


def test_sentencepiece_ids_are_the_same(sentencepiece_model: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model)
    (tmp_path / "tokenization_chatglm.py").write_text("raise SystemExit  # <|assistant|>\n")
    tokenizer = Tokenizer.from_buffer(read_tokenizer_json(tmp_path))
    original = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    for text in draw_pieces():
        ids = encode(tokenizer, text)
        assert ids == original.encode(text), text
        assert tokenizer.decode(ids) == original.decode(ids), text
    assert tokenizer.token_to_id("<|user|>") == original.vocab_size() + 6


def test_a_unigram_model_is_refused_by_name(tmp_path: Path) -> None:
    model = train_sentencepiece(model_type="unigram")
    (tmp_path / "tokenizer.model").write_bytes(model)
    with pytest.raises(UnsupportedModelError, match="not a BPE with pieces for bytes"):
        read_tokenizer_json(tmp_path)


@pytest.mark.parametrize("content", [b"\x00\xffgarbage", b"", b"{}"])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        read_tokenizer_json(tmp_path)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer.json and no tokenizer.model in"):
        read_tokenizer_json(tmp_path)


CHAT = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "再见"},
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "glm4",
            "[gMASK]<sop><|user|>\nHi<|assistant|>\nHello<|user|>\n再见<|assistant|>",
        ),
        (
            "chatglm3",
            "[gMASK]<sop><|user|>\n Hi<|assistant|>\n Hello<|user|>\n 再见<|assistant|>",
        ),
        (
            "chatglm2",
            "[gMASK]<sop>[Round 1]\n\n问：Hi\n\n答：Hello\n\n[Round 2]\n\n问：再见\n\n答：",
        ),
    ],
)
def test_templates_of_models_released_without_one(
    kind: str, expected: str, tmp_path: Path, tiktoken_model: bytes
) -> None:
    content = tiktoken_model if kind == "glm4" else b"\x0a\x0e"
    (tmp_path / "tokenizer.model").write_bytes(content)
    if kind == "chatglm3":
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"x": "<|assistant|>"}))
    source = choose_template(tmp_path)
    assert source is not None
    assert ChatTemplate(source).render(list(CHAT), ChatOptions()) == expected
    (tmp_path / "tokenizer.json").write_text("{}")
    assert choose_template(tmp_path) is None
