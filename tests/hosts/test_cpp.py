"""The C++ runtime gives Python's tokens: prompts, logits, answers, and text of any kind."""

import json
import random
import subprocess
import threading
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

import glm_runtime
from glm_export.tokenizer.from_tiktoken import _PATTERN
from glm_runtime import GenerationSettings
from glm_runtime.sampling.settings import DrySettings
from support import cpp_library as cpp
from support.cpp_build import PAGE, README, ROOT, SOURCE, read_blocks, run_block
from support.cpp_folders import use_tokenizer
from support.cpp_library import GREEDY, Library, Settings
from support.cpp_lines import make_lines
from support.neutral_sampling import neutral_sampling

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
NUM_LINES = 20_000


def test_conformance(folder: Path, model: cpp.Model, python_model: glm_runtime.Model) -> None:
    """Text to text: prompts, logits, greedy and drawn answers are those of conformance.json."""
    content = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    limit, sampling = content["max_new_tokens"], content["sampling"]
    drawn = Settings.of(GenerationSettings(neutral_sampling(**sampling), limit))
    shape = python_model.manifest.model
    for vector in content["vectors"]:
        messages = [(m["role"], m["content"].encode()) for m in vector["messages"]]
        assert model.render(messages) == vector["rendered"]
        prompt = model.tokenize(vector["rendered"].encode())
        assert prompt == vector["token_ids"]
        session = model.new_session()
        logits = session.logits(prompt, shape.vocab_size)
        session.close()
        expected = vector["logits"]
        assert [logits[i] for i in vector["logit_ids"]] == pytest.approx(expected, abs=1e-4)
        for name, settings in (("greedy", GREEDY), ("sampled", drawn)):
            # A session that has read the prompt reads its last token alone, which AVX2 rounds anew.
            session = model.new_session()
            pieces = session.generate(prompt, settings)
            session.close()
            ids = [piece.token for piece in pieces]
            assert ids == vector[name]["token_ids"]
            assert "".join(piece.text for piece in pieces) == python_model.tokenizer.decode(ids)
            assert pieces[-1].finish == vector[name]["finish_reason"]


SAMPLINGS = {
    "plain": neutral_sampling(),
    "hot": neutral_sampling(temperature=1.7, min_p=0.05),
    "top-k": neutral_sampling(temperature=0.9, top_k=40),
    "nucleus": neutral_sampling(temperature=0.6, top_p=0.8),
    "wide nucleus": neutral_sampling(temperature=3.0, top_p=0.99),
    "all": neutral_sampling(0.8, 1000, 0.95, 0.01, 1.1, 0.3, 0.2),
    "penalized greedy": neutral_sampling(0.0, repetition_penalty=1.3, frequency_penalty=0.5),
    "biased": neutral_sampling(0.9, logit_bias=((11, 3.5), (262, float("-inf")), (11, 1.0))),
    "dry": neutral_sampling(0.3, dry=DrySettings(2.0, 1.5, 1, ("\n", "e"))),
    "dry greedy": neutral_sampling(0.0, dry=DrySettings(), repetition_penalty=0.8),
}


@pytest.mark.parametrize("name", sorted(SAMPLINGS))
def test_one_seed_one_answer(name: str, model: cpp.Model, python_model: glm_runtime.Model) -> None:
    """Draws are PCG64's; a weight's last bit may differ from numpy's `exp`, which would change a
    token with a chance of about 1e-7 each: for all of these about one in three thousand.

    A new session for each: one that holds the prompt reads its last token alone, which kernels
    with int8 activations add up in another order than several at once.
    """
    prompt = python_model.tokenizer.encode("[gMASK]<sop><|user|>\nIn the<|assistant|>\n")
    for seed in (0, 1, 2**32 + 5, 2**64 - 1, *range(100, 103)):
        sampling = neutral_sampling(**{**vars(SAMPLINGS[name]), "seed": seed})
        settings = GenerationSettings(sampling, 48)
        expected = list(python_model.generate(prompt, settings))
        session = model.new_session()
        pieces = session.generate(prompt, Settings.of(settings))
        session.close()
        assert [piece.token for piece in pieces] == [piece.token_id for piece in expected]
        assert "".join(p.text for p in pieces) == "".join(p.text for p in expected)


def test_the_folders_own_settings(model: cpp.Model, python_model: glm_runtime.Model) -> None:
    found, expected = model.defaults(), python_model.sampling_defaults
    assert (found.temperature, found.top_k) == (expected.temperature, expected.top_k)
    assert (found.top_p, found.min_p, found.has_seed) == (expected.top_p, expected.min_p, 0)


def test_tokens_of_many_lines(model: cpp.Model) -> None:
    """Chinese, English, code, emoji, odd spaces, random characters and random bytes."""
    tokenizer = Tokenizer.from_file(str(SAMPLE / "tokenizer.json"))
    lines = make_lines(NUM_LINES)
    assert len(lines) == NUM_LINES
    for line in lines:
        ids = tokenizer.encode(line, add_special_tokens=False).ids
        assert model.tokenize(line.encode()) == ids, repr(line)
        assert model.detokenize(ids) == tokenizer.decode(ids), repr(line)


def test_any_ids_as_text(model: cpp.Model, python_model: glm_runtime.Model) -> None:
    """Ids that no text gives: characters broken anywhere become U+FFFD as in Python."""
    tokenizer, generator = python_model.tokenizer, random.Random(0)
    count = python_model.manifest.model.tokenizer_vocab_size
    for _ in range(2000):
        ids = generator.choices(range(count), k=generator.randrange(1, 20))
        assert model.detokenize(ids) == tokenizer.decode(ids)
    assert model.detokenize([10**6, -5]) == ""


PATTERNS = {"GLM-4": _PATTERN, "GPT-2": None}  # None: ByteLevel's own


def make_prober(pattern: str | None, *, ignores_merges: bool) -> Tokenizer:
    """Tokens tell where pieces end: a few first letters are joined with whatever follows them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(first, letter) for first in "a1.ĠĊ'" for letter in alphabet]
    names = [*alphabet, *(left + right for left, right in merges), "thewhole"]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern is not None:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|user|>", "<|user|>\n"])
    tokenizer.add_tokens(["<think>", "思考"])
    return tokenizer


@pytest.mark.parametrize("name", ["GLM-4", pytest.param("GPT-2", marks=pytest.mark.exhaustive)])
def test_every_code_point(name: str, folder: Path, library: Library, tmp_path: Path) -> None:
    """Behind a letter, a number, a mark, a space: classes are those of the library's engine."""
    tokenizer = make_prober(PATTERNS[name], ignores_merges=name == "GLM-4")
    model = library.load(use_tokenizer(folder, tmp_path / "copy", tokenizer.to_str()))
    # Behind the last assigned ideographs only every so often.
    codes = [*range(0xD800), *range(0xE000, 0x34000), *range(0x34000, 0x110000, 61)]
    points = [chr(code) for code in codes]
    wrong = []
    for start in range(0, len(points), 512):
        block = points[start : start + 512]
        if differ(tokenizer, model, block):
            wrong += [c for c in block if differ(tokenizer, model, [c])]
    assert wrong == [], [f"U+{ord(c):04X}" for c in wrong[:50]]
    for line in [*make_lines(NUM_LINES // 4, seed=1), "thewhole", " thewhole", "<think>思考"]:
        ids = tokenizer.encode(line, add_special_tokens=False).ids
        assert model.tokenize(line.encode()) == ids, repr(line)
        assert model.detokenize(ids) == tokenizer.decode(ids), repr(line)
    model.close()


def differ(tokenizer: Tokenizer, model: cpp.Model, characters: list[str]) -> bool:
    text = "".join(f"a{c}1{c}.{c} {c}'{c}\n" for c in characters)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return model.tokenize(text.encode()) != ids


def test_a_conversation_is_read_once(session: cpp.Session, model: cpp.Model) -> None:
    """What stands in the cache changes no token, and a long prompt goes through many chunks."""
    short = model.tokenize(b"[gMASK]<sop><|user|>\nRecite Genesis 1:1.<|assistant|>\n")
    long = model.tokenize(b"[gMASK]<sop><|user|>\n" + b"In the beginning. " * 200)
    fresh = {}
    for prompt in (short, long):
        other = model.new_session()
        fresh[len(prompt)] = [piece.token for piece in other.generate(prompt, GREEDY)]
        other.close()
    for prompt in (short, long, short, short, long):
        assert [piece.token for piece in session.generate(prompt, GREEDY)] == fresh[len(prompt)]


def test_threads(model: cpp.Model) -> None:
    """Two sessions of one model at once answer as each does alone."""
    prompts = [model.tokenize(text) for text in (b"In the", "床前".encode())]
    expected: list[list[int]] = []
    for prompt in prompts:
        session = model.new_session()
        expected.append([piece.token for piece in session.generate(prompt, GREEDY)])
        session.close()
    found: dict[int, list[list[int]]] = {0: [], 1: []}

    def answer(place: int) -> None:
        session = model.new_session()
        for _ in range(5):
            pieces = session.generate(prompts[place], GREEDY)
            found[place].append([piece.token for piece in pieces])
        session.close()

    threads = [threading.Thread(target=answer, args=(place,)) for place in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: [expected[place]] * 5 for place in found}


def test_the_pages_settings(built: Path, folder: Path, tmp_path: Path) -> None:
    """The example answers with them; both are C and compile without a warning."""
    (settings,) = read_blocks(PAGE, "c")
    code = (ROOT / "examples" / "c" / "main.c").read_text(encoding="utf-8")
    call = "glm_generate(session, tokens, count, &settings, print_piece, NULL)"
    assert call in code
    code = settings + code.replace(call, "answer(model, session, tokens, count, print_piece)")
    (tmp_path / "page.c").write_text(code, encoding="utf-8")
    flags = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", f"-I{SOURCE / 'include'}"]
    links = [f"-L{built}", "-lglm", f"-Wl,-rpath,{built}", f"-Wl,-rpath-link,{built}"]
    subprocess.run(["cc", *flags, "page.c", *links, "-o", "page"], cwd=tmp_path, check=True)
    command = [tmp_path / "page", folder, "In the beginning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout) > 20


def test_every_command_of_the_pages(built: Path, folder: Path, tmp_path: Path) -> None:
    """From top to bottom, in the folder that the README's first block built into."""
    checkout = built.parent
    (checkout / "artifacts").mkdir()
    (checkout / "artifacts" / "glm4-sample-int4").symlink_to(folder)
    first, *rest = read_blocks(README)
    assert "cmake --build build " in first
    blocks = [*rest, *read_blocks(PAGE), *read_blocks(ROOT / "examples" / "c" / "README.md")]
    elsewhere = ("mingw-w64", "make test-cpp")  # test_windows.py, and this test's own run
    shown = [run_block(checkout, b) for b in blocks if not any(word in b for word in elsewhere)]
    assert len(shown) == len(blocks) - len(elsewhere)
    assert "床前明月光" in shown[0]
    assert "\ntest-cpp:" in (ROOT / "Makefile").read_text(encoding="utf-8")
