"""The sample checkpoint is what its training code writes, as far as that takes no training."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, Glm4ForCausalLM

from sample import model, settings, tokenizer
from sample.settings import CHECKPOINT, HERE, load_settings, read_data

ROOT = Path(__file__).parents[1]


def read_json(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("corpus", None),
        ("tokenizer", "training.json is missing; run python -m sample.corpus first."),
        ("dataset", "training.json is missing; run python -m sample.corpus first."),
        ("train", "training.npz is missing; run python -m sample.dataset first."),
        ("measure", "training.json is missing; run python -m sample.corpus first."),
        ("calibration_text", "training.json is missing; run python -m sample.corpus first."),
    ],
)
def test_help_and_a_missing_input_start_no_work(
    name: str, reason: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = importlib.import_module(f"sample.{name}")
    monkeypatch.setattr(settings, "WORK", tmp_path)
    monkeypatch.setattr(command, "load_settings", None)  # the work's first step
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        command.main()
    if reason is None:
        return
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit, match=reason):
        command.main()


def test_the_chat_template_has_one_copy() -> None:
    assert CHECKPOINT == ROOT / "artifacts" / "glm4-sample"
    assert not list(HERE.rglob("*.jinja"))
    template = (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    # This is the tokenizer that `dataset.py` renders the chat examples with.
    assert AutoTokenizer.from_pretrained(CHECKPOINT).chat_template == template


def test_a_tokenizer_in_training_leaves_the_template_alone(tmp_path: Path) -> None:
    tokenizer.write_tokenizer(tokenizer.train_tokenizer(["a b"], load_settings()), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for name in ("pre_tokenizer", "decoder"):  # everything but what was learned from the texts
        written, committed = (
            read_json(folder / "tokenizer.json") for folder in (tmp_path, CHECKPOINT)
        )
        assert written[name] == committed[name]  # type: ignore[index]
    config = (tmp_path / "tokenizer_config.json").read_bytes()
    assert config == (CHECKPOINT / "tokenizer_config.json").read_bytes()


def test_the_special_tokens_end_the_vocabulary() -> None:
    settings = load_settings()
    committed = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert len(committed) == settings.vocabulary_tokens
    first = settings.vocabulary_tokens - len(tokenizer.SPECIAL_TOKENS)
    expected = list(range(first, settings.vocabulary_tokens))
    assert committed.convert_tokens_to_ids(tokenizer.SPECIAL_TOKENS) == expected


def test_configs_and_shapes_are_those_of_a_new_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "CHECKPOINT", tmp_path / "checkpoint")
    settings = load_settings()
    model.save_checkpoint(model.new_model(settings), settings)
    written = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert written == {"config.json", "generation_config.json", "model.safetensors"}
    for name in ("config.json", "generation_config.json"):
        made, committed = read_json(tmp_path / "checkpoint" / name), read_json(CHECKPOINT / name)
        for content in (made, committed):
            content.pop("transformers_version", None)  # type: ignore[attr-defined]
        assert made == committed, name
    shapes = []
    for folder in (tmp_path / "checkpoint", CHECKPOINT):
        with safe_open(folder / "model.safetensors", "pt") as file:
            shapes.append({key: tuple(file.get_slice(key).get_shape()) for key in file.keys()})  # noqa: SIM118
    assert shapes[0] == shapes[1]


def test_the_published_perplexity_is_that_of_the_checkpoint() -> None:
    committed = AutoTokenizer.from_pretrained(CHECKPOINT)
    windows = model.windows(committed, model.evaluation_parts()["english"])
    trained = Glm4ForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    found = model.perplexity(trained, windows)
    # Sums in another order change about the sixth digit.
    assert found == pytest.approx(
        read_data("metrics.json")["validation_perplexity"]["english"], rel=1e-4
    )


def test_the_demo_shows_both_answers_and_both_sizes(
    sample_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make demo` told the size of the folder alone, and no answer of the original."""
    question = "背诵李白的《静夜思》。"
    arguments = ["demo", str(CHECKPOINT), str(sample_folder), question]
    monkeypatch.setattr(sys, "argv", arguments)
    importlib.import_module("sample.demo").main()
    shown = capsys.readouterr().out
    assert shown.startswith(f"question: {question}\n")
    first, second = shown.split("exported, ONNX Runtime")
    assert "original, PyTorch" in first and "10.9 MB" in first
    assert re.search(r"4\.\d+ MB", second)
    for part in (first, second):
        assert "床前明月光" in part


def test_make_demo_is_never_silent_for_minutes() -> None:
    """A word before pip, the sizes and answers, a picture, and the next command."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = re.search(r"^demo:.*?(?=^\S)", lines, re.MULTILINE | re.DOTALL)
    assert demo is not None
    for words in ("glm-export", "glm-eval", "--layers", "-m sample.demo", "glm-run chat"):
        assert words in demo[0], words
    ready = re.search(r"^\$\(READY\):.*?(?=^\S)", lines, re.MULTILINE | re.DOTALL)
    assert ready is not None
    assert ready[0].index("Installing") < ready[0].index("pip install")
