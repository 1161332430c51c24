"""`ORTModelForCausalLM` and `AutoTokenizer` load our folder as it is: the same greedy tokens."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("optimum.onnxruntime", reason="in its own environment: make test-optimum")

from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.optimum_config import register
from glm_runtime import GenerationSettings, SamplingSettings
from support.chatglm_checkpoints import write_chatglm
from support.tiny_models import TinyShape, build_model, write_checkpoint

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "artifacts" / "glm4-sample"
PAGE = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
QUESTIONS = ("Recite John 3:16.", "背诵李白的《静夜思》。", "Who was Moses?", "写一首诗")
TOKENS = 48
GREEDY = {"do_sample": False, "max_new_tokens": TOKENS}


@pytest.fixture(scope="module")
def int4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register()
    folder = tmp_path_factory.mktemp("sample") / "int4"
    export(ExportOptions(SAMPLE, folder, method="rtn", verify="none"))
    return folder


@pytest.fixture(scope="module")
def expected(int4: Path) -> list[list[int]]:
    """Our runtime's tokens."""
    model = glm_runtime.load(int4, device="cpu")
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=TOKENS)
    return [[p.token_id for p in model.generate(prompt, settings)] for prompt in prompts(int4)]


@pytest.mark.parametrize(
    "choices",
    [{}, {"use_io_binding": True}, {"use_cache": False}],
    ids=["default", "IO binding", "no cache"],
)
def test_the_same_tokens(choices: dict[str, bool], int4: Path, expected: list[list[int]]) -> None:
    assert generate(ORTModelForCausalLM.from_pretrained(int4, **choices), int4) == expected


def test_the_page_of_hosts(
    int4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its block of docs/hosts.md."""
    section = PAGE.partition("\n## Optimum\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "glm4-sample-int4").symlink_to(int4)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # our own file
    assert "only begotten Son" in capsys.readouterr().out


def test_the_same_ids(int4: Path) -> None:
    ours, theirs = glm_runtime.load(int4).tokenizer, AutoTokenizer.from_pretrained(int4)
    for prompt in prompts(int4):
        assert theirs(prompt).input_ids == ours.encode(prompt)
    assert theirs.decode(theirs("<|user|>x").input_ids, skip_special_tokens=True) == "x"


def test_a_tokenizer_that_transformers_5_saved(tmp_path: Path, int4: Path) -> None:
    """Its class, `TokenizersBackend`, is unknown to the transformers that Optimum needs."""
    checkpoint = shutil.copytree(SAMPLE, tmp_path / "checkpoint")
    path = checkpoint / "tokenizer_config.json"
    content = json.loads(path.read_text()) | {"tokenizer_class": "TokenizersBackend"}
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="TokenizersBackend"):
        AutoTokenizer.from_pretrained(checkpoint)
    export(ExportOptions(checkpoint, tmp_path / "out", method="rtn", verify="none"))
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [theirs(prompt).input_ids for prompt in prompts(int4)] == [
        glm_runtime.load(int4).tokenizer.encode(prompt) for prompt in prompts(int4)
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_side_by_side(side: str, int4: Path, expected: list[list[int]]) -> None:
    """The graph reads rows with padding on either side; transformers recommends the left."""
    tokenizer = AutoTokenizer.from_pretrained(int4)
    assert tokenizer.padding_side == "left"
    tokenizer.padding_side = side
    rows = tokenizer(prompts(int4), return_tensors="pt", padding=True)
    assert not rows.attention_mask.all()
    answers = ORTModelForCausalLM.from_pretrained(int4).generate(**rows, **GREEDY)
    for answer, tokens in zip(answers[:, rows.input_ids.shape[1] :], expected, strict=True):
        assert answer[: len(tokens)].tolist() == tokens


def test_float_gives_the_tokens_of_transformers(tmp_path: Path) -> None:
    register()
    export(ExportOptions(SAMPLE, tmp_path / "none", quant="none", verify="none"))
    original = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32)
    theirs = ORTModelForCausalLM.from_pretrained(tmp_path / "none")
    answers = generate(theirs, tmp_path / "none")
    assert answers == generate(original, tmp_path / "none")


def test_glm_with_heads_that_are_not_the_hidden_size(tmp_path: Path) -> None:
    """Optimum has `glm` of its own, but takes the hidden size over the heads for their size."""
    register()
    original = build_model(TinyShape(model_type="glm", head_dim=64))
    checkpoint = write_checkpoint(tmp_path / "checkpoint", original)
    export(ExportOptions(checkpoint, tmp_path / "none", quant="none", verify="none"))
    theirs = ORTModelForCausalLM.from_pretrained(tmp_path / "none")
    row = {"input_ids": torch.tensor([[257, 258, 72]]), "attention_mask": torch.ones(1, 3).long()}
    assert theirs.generate(**row, **GREEDY).equal(original.generate(**row, **GREEDY))


def prompts(folder: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = [[{"role": "user", "content": question}] for question in QUESTIONS]
    rendered: list[str] = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, tokenize=False
    )
    return rendered


def generate(model: torch.nn.Module, folder: Path) -> list[list[int]]:
    """Greedy answers, one question at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers = []
    for prompt in prompts(folder):
        row = tokenizer(prompt, return_tensors="pt")
        answers.append(model.generate(**row, **GREEDY)[0, row.input_ids.shape[1] :].tolist())
    return answers


def test_a_folder_of_chatglm(tmp_path: Path) -> None:
    """Its config.json named a type that transformers does not know without code."""
    register()
    model = build_model(TinyShape(model_type="glm", rope_theta=5_000_000.0))
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    folder = tmp_path / "out"
    export(ExportOptions(checkpoint, folder, quant="none", verify="none"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = glm_runtime.load(folder, device="cpu")
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=16)
    shape = ours.manifest.model
    padding = [[token] for token in range(shape.tokenizer_vocab_size, shape.vocab_size)]
    greedy = {"do_sample": False, "max_new_tokens": 16, "bad_words_ids": padding}
    theirs = ORTModelForCausalLM.from_pretrained(folder)
    for prompt in ("hello", "[gMASK]<sop><|user|>\nHi<|assistant|>"):
        ids = tokenizer(prompt, return_tensors="pt")
        found = theirs.generate(**ids, **greedy)[0].tolist()
        expected = [piece.token_id for piece in ours.generate(prompt, settings)]
        assert found[ids["input_ids"].shape[1] :] == expected
