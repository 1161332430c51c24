"""What C++ makes of an answer is what Python makes of it: stop texts, thinking, biases, limits."""

import ctypes
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import glm_runtime
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.text.answer import AnswerForm
from support import cpp_library as cpp
from support.cpp_folders import change_limits, use_tokenizer
from support.cpp_library import Library, Settings
from support.neutral_sampling import neutral_sampling

# Parts that marks and stop texts are made of, and blanks around them.
MARKS = ("<think>", "</think>", "<th", "ink>", "</thi", "nk>")
PARTS = (*MARKS, "ST", "OP", "STOP", " ", "  ", "\n", "\n\n", "\u3000", "a", "好", "b\n", "<", "é")
STOPS = ((), ("STOP",), ("ab", "a\n", "好"), ("\n",), ("STOPa", "TOP"))


def build_tokenizer() -> Tokenizer:
    """Bytes, half a character, and the parts above, none of which is special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(part, normalized=False) for part in PARTS])
    return tokenizer


@pytest.fixture(scope="module")
def marked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("marked") / "copy"
    return use_tokenizer(folder, copy, build_tokenizer().to_str())


@pytest.fixture(scope="module")
def marked_model(library: Library, marked: Path) -> Iterator[cpp.Model]:
    model = library.load(marked)
    yield model
    model.close()


def draw_settings(seed: int) -> GenerationSettings:
    """All parts about as likely, a byte of a character now and then, nothing else."""
    generator = random.Random(seed)
    size = len(pre_tokenizers.ByteLevel.alphabet())
    allowed = {*range(size, size + len(PARTS)), generator.randrange(size)}
    bias = tuple((i, float("-inf")) for i in range(4190) if i not in allowed)
    sampling = neutral_sampling(temperature=50.0, logit_bias=bias, seed=seed)
    return GenerationSettings(
        sampling,
        max_new_tokens=generator.randrange(1, 40),
        stop=generator.choice(STOPS),
        max_thinking_tokens=generator.choice((None, None, 0, 3, 10)),
        is_eos_ignored=generator.random() < 0.5,
    )


@pytest.mark.parametrize("kind", ["text", "chat", "open"])
def test_random_answers(kind: str, marked: Path, marked_model: cpp.Model) -> None:
    """Piece by piece: text, thinking, and why it ends."""
    model = glm_runtime.load(marked, device="cpu")
    text = {"text": "In<think>", "chat": "In", "open": "In<think> \n"}[kind]
    prompt = model.tokenizer.encode(text)
    form = AnswerForm(is_chat=kind != "text", is_thinking=kind == "open")
    reasons, thoughts = set(), 0
    for seed in range(20):
        settings = draw_settings(seed)
        if kind == "text":
            settings = replace(settings, max_thinking_tokens=None)
        expected = list(model.new_session().generate(prompt, settings, form))
        session = marked_model.new_session()
        pieces = session.generate(prompt, Settings.of(settings, is_chat=form.is_chat))
        session.close()
        found = [(p.token, p.text, p.reasoning, p.finish) for p in pieces]
        assert found == [(p.token_id, p.text, p.reasoning, p.finish_reason) for p in expected]
        reasons.add(found[-1][3])
        thoughts += sum(len(piece.reasoning) for piece in pieces)
    assert {"length", "stop_string"} <= reasons
    assert (thoughts > 0) == (kind != "text")


def test_ends_are_ignored(model: cpp.Model, python_model: glm_runtime.Model) -> None:
    prompt = model.tokenize(b"[gMASK]<sop><|user|>\nRecite John 3:16.<|assistant|>\n")
    for is_ignored, length in ((False, None), (True, 200)):
        greedy = SamplingSettings(temperature=0)
        settings = GenerationSettings(greedy, 200, is_eos_ignored=is_ignored)
        expected = list(python_model.generate(prompt, settings))
        session = model.new_session()
        pieces = session.generate(prompt, Settings.of(settings))
        session.close()
        assert [p.token for p in pieces] == [p.token_id for p in expected]
        assert length is None or len(pieces) == length


def test_what_a_model_is(model: cpp.Model, folder: Path) -> None:
    info = model.describe()
    shape = json.loads((folder / "glm_manifest.json").read_text())["model"]
    assert info.context_length == shape["context_length"]
    assert (info.token_count, info.vocab_size) == (4190, shape["vocab_size"])
    assert info.threads >= 1


class LongerSettings(Settings):
    """Of a newer header."""

    _fields_ = (("newer", ctypes.c_int64),)


def test_older_and_newer_headers(library: Library, model: cpp.Model, session: cpp.Session) -> None:
    """Zeros in what this library does not know are as before; more is refused, and no size is."""
    longer = LongerSettings(size=ctypes.sizeof(LongerSettings), newer=7)
    library.check(library.c.glm_default_settings(model.handle, ctypes.byref(longer)))
    assert (longer.size, longer.newer) == (ctypes.sizeof(LongerSettings), 0)
    longer.temperature, longer.max_new_tokens = 0.0, 8
    assert len(session.generate([5, 6], longer)) <= 8
    longer.newer = 1
    refusals = {ctypes.sizeof(LongerSettings): "does not know", 0: "size is 0", 1 << 40: "size is"}
    for size, text in refusals.items():
        longer.size = size
        with pytest.raises(cpp.GlmError, match=text) as caught:
            session.generate([5, 6], longer)
        assert caught.value.status == cpp.BAD_SETTING
    status = library.c.glm_default_settings(model.handle, ctypes.byref(Settings(size=8)))
    assert status == cpp.BAD_SETTING


@pytest.mark.parametrize(
    ("config", "length", "count"),
    [
        ({"max_new_tokens": 7}, 4, 7),
        ({"max_length": 20}, 6, 14),
        ({"max_length": 20, "max_new_tokens": 3}, 6, 3),
    ],
)
def test_the_folders_limits_are_obeyed(
    folder: Path, library: Library, tmp_path: Path, config: dict[str, int], length: int, count: int
) -> None:
    """Without settings, and with settings that come from `glm_default_settings`."""
    copy = change_limits(folder, tmp_path / "copy", config)
    model = library.load(copy)
    session = model.new_session()
    defaults = model.defaults()
    defaults.ignores_eos = 1
    assert len(session.generate([5] * length, defaults)) == count
    assert len(session.generate([5] * length, None)) <= count
    python = glm_runtime.load(copy, device="cpu")
    assert len(list(python.generate([5] * length, is_eos_ignored=True))) == count
    defaults.max_new_tokens, defaults.max_length = 0, length
    with pytest.raises(cpp.GlmError, match=f"has {length} tokens where max_length={length}"):
        session.generate([5] * length, defaults)
    session.close()
    model.close()


@pytest.mark.parametrize("value", [0, -1, 1.5, "7"])
def test_a_limit_that_is_no_count_is_refused(
    folder: Path, library: Library, tmp_path: Path, value: object
) -> None:
    copy = change_limits(folder, tmp_path / "copy", {"max_new_tokens": value})
    with pytest.raises(cpp.GlmError, match=r"generation_config\.json") as caught:
        library.load(copy)
    assert caught.value.status == cpp.BAD_FOLDER


BAD_TEXTS = {
    "a stop is empty": ("stop", (b"a", b""), "is empty"),
    "a stop is no text": ("stop", (b"\xff",), "is not UTF-8"),
    "a stop is NULL": ("stop", (None,), "is NULL"),
}


@pytest.mark.parametrize("name", sorted(BAD_TEXTS))
def test_bad_texts(name: str, session: cpp.Session) -> None:
    member, texts, expected = BAD_TEXTS[name]
    settings = Settings.of(GenerationSettings(max_new_tokens=8))
    setattr(settings, member, (ctypes.c_char_p * len(texts))(*texts))
    setattr(settings, f"{member}_count", len(texts))
    with pytest.raises(cpp.GlmError, match=expected) as caught:
        session.generate([1], settings)
    assert caught.value.status == cpp.BAD_SETTING


def test_bad_biases(session: cpp.Session) -> None:
    settings = Settings.of(GenerationSettings(max_new_tokens=8))
    settings.biases, settings.bias_count = ctypes.POINTER(cpp.Bias)(), 1
    with pytest.raises(cpp.GlmError, match="biases is NULL where an array"):
        session.generate([1], settings)
    for bias, text in (
        (cpp.Bias(4190, 1.0), "contains the id 4190"),
        (cpp.Bias(-1, 1.0), "contains the id -1"),
        (cpp.Bias(3, float("nan")), "bias of token 3 is"),
        (cpp.Bias(3, float("inf")), "bias of token 3 is"),
    ):
        settings.biases = (cpp.Bias * 1)(bias)
        with pytest.raises(cpp.GlmError, match=text) as caught:
            session.generate([1], settings)
        assert caught.value.status == cpp.BAD_SETTING


def test_everything_forbidden(session: cpp.Session) -> None:
    """No logit is left: an error value, and the session goes on."""
    nothing = tuple((i, float("-inf")) for i in range(4190))
    for temperature in (0.0, 1.0):
        sampling = SamplingSettings(temperature=temperature, logit_bias=nothing)
        with pytest.raises(cpp.GlmError, match="no finite maximum") as caught:
            session.generate([5], Settings.of(GenerationSettings(sampling, 8)))
        assert caught.value.status == cpp.RUN_FAILED
    assert session.generate([5], Settings.of(GenerationSettings(SamplingSettings(0.0), 2)))
