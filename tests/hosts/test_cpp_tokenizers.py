"""Kinds of tokenizer.json in C++: the tokens of the `tokenizers` package, or a refusal by name."""

import io
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

import glm_runtime
from glm_export.tokenizer.from_sentencepiece import convert_sentencepiece
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.sampling.settings import DrySettings
from support import cpp_library as cpp
from support.cpp_folders import use_tokenizer
from support.cpp_library import Library, Settings
from support.cpp_lines import make_lines
from support.neutral_sampling import neutral_sampling

DATA = Path(__file__).parents[2] / "export" / "glm_export" / "data"
NUM_LINES = 20_000

Choices = dict[str, bool]
NO_PREFIX: Choices = {"add_dummy_prefix": False, "split_digits": True}
KINDS: dict[str, Choices] = {"prefix": {}, "no prefix": NO_PREFIX}


def train_sentencepiece(choices: Choices) -> str:
    """A tokenizer.json as the exporter makes it of ChatGLM3's kind of tokenizer.model."""
    model, lines = io.BytesIO(), (DATA / "calibration.jsonl").read_text(encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines.splitlines() if len(line) < 3000),
        model_writer=model,
        vocab_size=3000,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **choices,
    )
    return convert_sentencepiece(model.getvalue(), has_roles=True, has_bare_start=False, config={})


def load(library: Library, folder: Path, copy: Path, content: str) -> cpp.Model:
    return library.load(use_tokenizer(folder, copy, content))


@pytest.mark.parametrize(
    "kind", ["prefix", pytest.param("no prefix", marks=pytest.mark.exhaustive)]
)
def test_sentencepiece(kind: str, folder: Path, library: Library, tmp_path: Path) -> None:
    """20,000 lines, any ids, and answers while they arrive."""
    content = train_sentencepiece(KINDS[kind])
    tokenizer = Tokenizer.from_str(content)
    model = load(library, folder, tmp_path / "copy", content)
    for line in ["", " ", "▁", *make_lines(NUM_LINES)]:
        ids = tokenizer.encode(line, add_special_tokens=False).ids
        assert model.tokenize(line.encode()) == ids, repr(line)
        assert model.detokenize(ids) == tokenizer.decode(ids), repr(line)
    generator = random.Random(0)
    for _ in range(2000):
        ids = generator.choices(range(tokenizer.get_vocab_size()), k=generator.randrange(1, 20))
        assert model.detokenize(ids) == tokenizer.decode(ids)
    python = glm_runtime.load(tmp_path / "copy", device="cpu")
    bytes_ = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256)]
    missing = range(tokenizer.get_vocab_size(), 4190)  # of the graph's ids
    forbidden = tuple((id_, float("-inf")) for id_ in (*bytes_, *missing))
    for seed in range(20):
        sampling = neutral_sampling(temperature=50.0, logit_bias=forbidden, seed=seed)
        settings = GenerationSettings(sampling, 40, is_eos_ignored=True)
        session = model.new_session()
        found = [piece.text for piece in session.generate([5, 6], Settings.of(settings))]
        session.close()
        assert found == [piece.text for piece in python.generate([5, 6], settings)]
    model.close()


def compare_answers(content: str, library: Library, copy: Path, sampling: SamplingSettings) -> None:
    """Piece by piece with Python's, of twenty seeds."""
    model, python = library.load(copy), glm_runtime.load(copy, device="cpu")
    missing = range(Tokenizer.from_str(content).get_vocab_size(), 4190)  # of the graph's ids
    bias = (*sampling.logit_bias, *((id_, float("-inf")) for id_ in missing))
    for seed in range(20):
        chosen = replace(sampling, seed=seed, logit_bias=bias)
        settings = GenerationSettings(chosen, 40, is_eos_ignored=True)
        session = model.new_session()
        found = session.generate([5, 6], Settings.of(settings))
        session.close()
        expected = list(python.generate([5, 6], settings))
        assert [piece.token for piece in found] == [piece.token_id for piece in expected]
        assert [piece.text for piece in found] == [piece.text for piece in expected]
    model.close()


def test_bytes_that_are_no_characters(folder: Path, library: Library, tmp_path: Path) -> None:
    """While an answer arrives: what there is of U+FFFD depends on the bytes around it."""
    content = train_sentencepiece({})
    copy = use_tokenizer(folder, tmp_path / "copy", content)
    others = range(400, Tokenizer.from_str(content).get_vocab_size())  # bytes have ids from 3 on
    forbidden = tuple((id_, float("-inf")) for id_ in others)
    compare_answers(content, library, copy, neutral_sampling(50.0, logit_bias=forbidden))


def test_breakers_are_looked_for_in_tokens_alone(
    folder: Path, library: Library, tmp_path: Path
) -> None:
    """DRY: "▁the" alone is a text without its space, so a space does not break at it."""
    content = train_sentencepiece({})
    tokenizer = Tokenizer.from_str(content)
    copy = use_tokenizer(folder, tmp_path / "copy", content)
    few = {tokenizer.token_to_id(name) for name in ("▁the", "▁and", "▁of", "a", "▁", "▁▁")}
    few.discard(None)
    others = set(range(tokenizer.get_vocab_size())) - few
    forbidden = tuple((id_, float("-inf")) for id_ in sorted(others))
    dry = DrySettings(50.0, allowed_length=1, sequence_breakers=(" ",))
    compare_answers(content, library, copy, neutral_sampling(50.0, logit_bias=forbidden, dry=dry))


def test_characters_of_bytes_arrive_whole(folder: Path, library: Library, tmp_path: Path) -> None:
    """SentencePiece's pieces for bytes, one by one by bias: text comes at the last of them."""
    content = train_sentencepiece({})
    tokenizer = Tokenizer.from_str(content)
    model = load(library, folder, tmp_path / "copy", content)
    model_bytes = "🙂".encode()
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in model_bytes]
    session, prompt, texts = model.new_session(), [5], []
    for id_ in ids:
        sampling = SamplingSettings(temperature=0, logit_bias=((id_, 1e6),))
        pieces = session.generate(prompt, Settings.of(GenerationSettings(sampling, 1)))
        texts.append(pieces[0].text)
        prompt.append(id_)
    assert texts == ["\N{REPLACEMENT CHARACTER}"] * 4  # each an answer of its own, cut off
    assert model.detokenize(ids) == "🙂"
    assert model.detokenize(ids[:3]) == "\N{REPLACEMENT CHARACTER}" * 3
    session.close()
    model.close()


def build_byte_level(*, ignore_merges: bool = False) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(a, b) for a, b in itertools.product("ab<|>", repeat=2)]
    names = [*alphabet, *(a + b for a, b in merges), "whole<|"]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_added_tokens_of_any_kind(folder: Path, library: Library, tmp_path: Path) -> None:
    """Next to each other, within each other, overlapping; special or not, normalized or not."""
    generator = random.Random(0)
    for number in range(20):
        tokenizer = build_byte_level(ignore_merges=number % 2 == 0)
        for _ in range(generator.randrange(1, 12)):
            letters = generator.choices("ab<|> 好", k=generator.randrange(1, 6))
            is_special, is_normalized = generator.random() < 0.5, generator.random() < 0.5
            token = AddedToken("".join(letters), normalized=is_normalized, special=is_special)
            (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([token])
        tokenizer = Tokenizer.from_str(tokenizer.to_str())  # as whoever reads the file has it
        model = load(library, folder, tmp_path / str(number), tokenizer.to_str())
        for _ in range(300):
            text = "".join(generator.choices("ab<|> 好\n", k=generator.randrange(30)))
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert model.tokenize(text.encode()) == ids, (repr(text), tokenizer.to_str()[:2000])
            assert model.detokenize(ids) == tokenizer.decode(ids)
        model.close()


def test_merges_as_lists_and_as_lines(folder: Path, library: Library, tmp_path: Path) -> None:
    content = json.loads(build_byte_level().to_str())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    assert isinstance(content["model"]["merges"][0], str)
    old = load(library, folder, tmp_path / "old", json.dumps(content))
    new = load(library, folder, tmp_path / "new", build_byte_level().to_str())
    for text in (b"abab<|>", b"aabb ||", b"whole<|"):
        assert old.tokenize(text) == new.tokenize(text)
    old.close()
    new.close()


Change = Callable[[dict[str, Any]], object]


def change_model(**changes: object) -> Change:
    return lambda content: content["model"].update(changes)


def change_token(**changes: object) -> Change:
    return lambda content: content["added_tokens"].append(
        {"id": 999, "content": "x", "special": True, **changes}
    )


def put(part: str, value: Any) -> Change:
    return lambda content: content.update({part: json.loads(value.__getstate__())})


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLIT = pre_tokenizers.Split(Regex(r"\p{L}+"), "isolated")
REFUSED: dict[str, tuple[Change, int, str]] = {
    "NFC": (put("normalizer", normalizers.NFC()), cpp.UNSUPPORTED, "the normalizer NFC"),
    "lstrip": (change_token(lstrip=True), cpp.UNSUPPORTED, "an added token with lstrip"),
    "rstrip": (change_token(rstrip=True), cpp.UNSUPPORTED, "an added token with rstrip"),
    "single word": (change_token(single_word=True), cpp.UNSUPPORTED, "with single_word"),
    "no id": (change_token(id=-1), cpp.BAD_FOLDER, "needs an id from 0"),
    "huge id": (change_token(id=2**40), cpp.BAD_FOLDER, "needs an id from 0"),
    "WordPiece": (change_model(type="WordPiece"), cpp.UNSUPPORTED, "the model 'WordPiece'"),
    "Unigram": (change_model(type="Unigram", vocab=[]), cpp.UNSUPPORTED, "'Unigram'"),
    "dropout": (change_model(dropout=0.1), cpp.UNSUPPORTED, "dropout"),
    "unknown token": (change_model(unk_token="a"), cpp.UNSUPPORTED, "an unk_token"),
    "prefix": (change_model(continuing_subword_prefix="#"), cpp.UNSUPPORTED, "subword_prefix"),
    "no bytes": (change_model(byte_fallback=True), cpp.UNSUPPORTED, "no token <0x00>"),
    "a merge of none": (change_model(merges=[["zz", "a"]]), cpp.BAD_FOLDER, "merges 'zz' and 'a'"),
    "a merge of one": (change_model(merges=["aa"]), cpp.BAD_FOLDER, "a merge of two tokens"),
    "no merges": (lambda c: c["model"].pop("merges"), cpp.BAD_FOLDER, "no vocab or no merges"),
    "no vocab": (lambda c: c["model"].pop("vocab"), cpp.BAD_FOLDER, "no vocab or no merges"),
    "no model": (lambda c: c.pop("model"), cpp.BAD_FOLDER, "the model is missing"),
    "negative id": (change_model(vocab={"a": -1}, merges=[]), cpp.BAD_FOLDER, "the id -1"),
    "broken id": (change_model(vocab={"a": 1e999}, merges=[]), cpp.BAD_FOLDER, "is invalid at"),
    "fraction": (change_model(vocab={"a": 1.5}, merges=[]), cpp.BAD_FOLDER, "a 64-bit integer"),
    "pattern": (
        put("pre_tokenizer", pre_tokenizers.Sequence([SPLIT, BYTE_LEVEL])),
        cpp.UNSUPPORTED,
        r"the pattern \\p{L}+",
    ),
    "prefix space": (
        put("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        cpp.UNSUPPORTED,
        "add_prefix_space",
    ),
    "no bytes' letters": (
        put("pre_tokenizer", pre_tokenizers.Metaspace()),
        cpp.UNSUPPORTED,
        "the pre-tokenizer Metaspace",
    ),
    "another decoder": (
        put("decoder", decoders.Metaspace()),
        cpp.UNSUPPORTED,
        "the decoder Metaspace",
    ),
    "deep": (
        lambda c: c.update(post_processor=json.loads("[" * 100 + "]" * 100)),
        cpp.BAD_FOLDER,
        "nested too deeply",
    ),
    "many patterns": (
        lambda c: c["pre_tokenizer"].update(
            type="Sequence",
            pretokenizers=[{"type": "Split", "pattern": {"Regex": GPT2}, "behavior": "Isolated"}]
            * 9,
        ),
        cpp.UNSUPPORTED,
        "more than 8 patterns",
    ),
}
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_refused(name: str, folder: Path, library: Library, tmp_path: Path) -> None:
    change, status, text = REFUSED[name]
    content = json.loads(build_byte_level().to_str())
    change(content)
    with pytest.raises(cpp.GlmError, match=text) as caught:
        load(library, folder, tmp_path / "copy", json.dumps(content))
    assert caught.value.status == status


DOUBLE = [normalizers.Replace("a", "aa")]
REFUSED_OF_SENTENCEPIECE: dict[str, tuple[Change, str]] = {
    "regex": (
        put("normalizer", normalizers.Replace(Regex(" {2,}"), " ")),
        r"the normalizer Replace of  \{2,\}",
    ),
    "NFKC": (put("normalizer", normalizers.NFKC()), "the normalizer NFKC"),
    "long": (put("normalizer", normalizers.Replace("a", "aaaaa")), "may make a text very long"),
    "many": (put("normalizer", normalizers.Sequence(DOUBLE * 5)), "may make a text very long"),
    "decoder": (put("decoder", decoders.Fuse()), "the decoder Fuse"),
    "strip": (
        lambda c: c["decoder"]["decoders"][-1].update(start=2),
        "the decoder Replace, ByteFallback, Fuse, Strip",
    ),
    "cutting": (put("pre_tokenizer", pre_tokenizers.Metaspace()), "the pre-tokenizer Metaspace"),
    "normalized token": (change_token(normalized=True), "an added token that is normalized"),
    "ignored merges": (change_model(ignore_merges=True), "byte_fallback and ignore_merges"),
}


def test_what_is_refused_of_sentencepiece(folder: Path, library: Library, tmp_path: Path) -> None:
    trained = train_sentencepiece({})
    for name, (change, text) in REFUSED_OF_SENTENCEPIECE.items():
        content = json.loads(trained)
        change(content)
        with pytest.raises(cpp.GlmError, match=text) as caught:
            load(library, folder, tmp_path / name, json.dumps(content))
        assert caught.value.status == cpp.UNSUPPORTED
