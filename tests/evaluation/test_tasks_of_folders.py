"""`glm-eval --tasks`: one table of what folders lose, with lm-eval's own figures."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from glm_export import ExportOptions, export
from glm_export.evaluation import tasks as task_runs
from glm_export.model.layer_stream import LayerStream
from support.evaluation_runs import Run, make_runner
from support.harness_models import SAMPLE, open_ours
from support.refusals import assert_sentence
from support.verse_tasks import CHOICES, CLOZE, RECITE, TASKS, WHOLE

SMALL = ("--window", 64, "--max-tokens", 640)
GROUP = "verse_group"


@pytest.fixture(scope="module")
def float_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("float") / "float"
    export(ExportOptions(SAMPLE, output, quant="none", verify="none"))
    return output


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return make_runner(monkeypatch, capsys)


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's 14,000 own files take seconds to read."""
    monkeypatch.setattr(
        task_runs,
        "TaskManager",
        lambda include_path: TaskManager(include_path=include_path, include_defaults=False),
    )


def evaluate(model: Any, tasks: Path, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )["results"]
    return found


def write_group(tasks: Path, folder: Path) -> None:
    """Copy the tasks, and add a group of two of them."""
    group = {
        "group": GROUP,
        "task": [CHOICES, CLOZE],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}],
    }
    for path in tasks.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "group.yaml").write_text(json.dumps(group), encoding="utf-8")


def require_same(found: dict[str, dict[str, float]], expected: dict[str, Any]) -> None:
    for name in TASKS:
        wanted = {
            key: value
            for key, value in expected[name].items()
            if "," in key and isinstance(value, float)
        }
        assert found[name] == pytest.approx(wanted, rel=1e-3), name


@pytest.mark.usefixtures("only_ours")
def test_one_table_has_the_figures_of_lm_eval(
    sample_folder: Path, float_folder: Path, tasks: Path, run: Run, tmp_path: Path
) -> None:
    """The original has those of lm-eval's `hf`, each folder those of `glm-onnx`."""
    arguments = ["--tasks", ",".join(TASKS), "--include-path", tasks, *SMALL]
    arguments += ["--json", "--plot", tmp_path / "plot.svg"]
    code, out, err = run(SAMPLE, float_folder, sample_folder, *arguments)
    assert code == 0, err
    found = json.loads(out)
    model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32)
    theirs = HFLM(model, tokenizer=AutoTokenizer.from_pretrained(SAMPLE))
    require_same(found["reference_tasks"], evaluate(theirs, tasks))
    require_same(found["folders"][0]["tasks"], evaluate(theirs, tasks))
    require_same(found["folders"][1]["tasks"], evaluate(open_ours(sample_folder), tasks))
    shown = {
        (row["folder"], row["compared_with"], row["figure"]): row for row in found["differences"]
    }
    name = sample_folder.name
    for task, metric, count in (
        (CHOICES, "acc", 8),
        (CLOZE, "perplexity", 8),
        (WHOLE, "word_perplexity", 8),
        (RECITE, "exact_match", 3),
    ):
        row = shown[name, "original", f"{task} {metric}"]
        assert row["documents"] == count
        reached, original = (
            one[task][f"{metric},none"]
            for one in (found["folders"][1]["tasks"], found["reference_tasks"])
        )
        change = reached / original - 1 if row["is_relative"] else reached - original
        assert row["difference"] == pytest.approx(change, abs=1e-6)
        assert (name, "float", f"{task} {metric}") in shown
    assert b"verse_choices acc" in (tmp_path / "plot.svg").read_bytes()
    for stage in ("loading tasks", "original: reading", "float: answering"):
        assert stage in err


@pytest.mark.usefixtures("only_ours")
def test_options_of_lm_eval(sample_folder: Path, tasks: Path, run: Run) -> None:
    """--limit, and the chat template, which changes the figures; without them nothing changes."""
    arguments = [SAMPLE, sample_folder, "--tasks", "verse_c*", "--include-path", tasks, *SMALL]
    code, out, err = run(*arguments, "--limit", 3, "--apply-chat-template", "--json", "--quiet")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {row["documents"] for row in found["differences"] if "documents" in row} == {3}
    expected = evaluate(open_ours(sample_folder), tasks, limit=3, apply_chat_template=True)
    assert set(found["tasks"]) == {CHOICES, CLOZE}
    for name, metrics in found["tasks"].items():
        for key, value in metrics.items():
            assert value == pytest.approx(expected[name][key], rel=1e-3)


@pytest.mark.usefixtures("only_ours")
def test_a_group_is_one_row(sample_folder: Path, tasks: Path, tmp_path: Path, run: Run) -> None:
    """The group's figure is lm-eval's, and its interval is over the documents of both tasks."""
    write_group(tasks, tmp_path)
    arguments = ["--tasks", GROUP, "--include-path", tmp_path, *SMALL, "--quiet"]
    code, out, err = run(SAMPLE, sample_folder, *arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["tasks"]) == [GROUP]
    (row,) = [row for row in found["differences"] if "documents" in row]
    assert (row["figure"], row["documents"]) == (f"{GROUP} acc", 16)
    change = found["tasks"][GROUP]["acc,none"] - found["reference_tasks"][GROUP]["acc,none"]
    assert row["difference"] == pytest.approx(change)


# --- what is refused, before any model runs


@pytest.fixture
def refuse(run: Run, sample_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(words: tuple[str, ...], *arguments: object, code: int = 2) -> None:
        monkeypatch.delattr(LayerStream, "run")  # whoever asks for it fails
        found, out, err = run(SAMPLE, sample_folder, *arguments, "--quiet")
        assert (found, out) == (code, "")
        (line,) = err.splitlines()
        assert_sentence(line.removeprefix("Error: "), *words)

    return call


@pytest.mark.usefixtures("only_ours")
def test_unknown_tasks(refuse: Callable[..., None], tasks: Path) -> None:
    words = ("lm-eval has no task 'verse_choice'", "write verse_choices", "--include-path")
    refuse(words, "--tasks", "verse_choice", "--include-path", tasks)


@pytest.mark.usefixtures("only_ours")
def test_a_task_and_its_group(refuse: Callable[..., None], tasks: Path, tmp_path: Path) -> None:
    """lm-eval refuses them, but only when the original had been read."""
    write_group(tasks, tmp_path)
    words = (f"the task {CHOICES} is named twice, the second time as {GROUP}", "leave one")
    refuse(words, "--tasks", f"{CHOICES},{GROUP}", "--include-path", tmp_path)


@pytest.mark.usefixtures("only_ours")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"dataset_path": "cais/mmlu", "dataset_kwargs": {}},
            ("the task broken cannot be loaded (", "Hugging Face Hub", "connect to it"),
        ),
        (
            {"dataset_kwargs": {"data_files": {"test": "/nowhere.jsonl"}}},
            ("the task broken cannot be loaded (", "nowhere.jsonl", "correct the task"),
        ),
        ({"doc_to_text": "{{question"}, ("the task broken cannot be loaded (", "correct the task")),
        ({"unsafe_code": True}, ("the task broken runs code that models write", "glm_lm_eval")),
    ],
)
def test_tasks_that_cannot_run(
    refuse: Callable[..., None],
    tasks: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The variable of the environment is read once, at import; waiting for a hub takes 20 seconds.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    content = json.loads((tasks / f"{CHOICES}.yaml").read_text(encoding="utf-8"))
    content |= {"task": "broken", **changes}
    (tmp_path / "broken.yaml").write_text(json.dumps(content), encoding="utf-8")
    refuse(words, "--tasks", "broken", "--include-path", tmp_path)


def test_a_missing_extra(refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    words = ("lm-eval is not installed", "pip install 'lm-eval[api]'", "leave --tasks out")
    refuse(words, "--tasks", CHOICES, code=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "3"], ("--limit is for tasks", "add --tasks")),
        (["--apply-chat-template"], ("--apply-chat-template is for tasks", "add --tasks")),
        (["--tasks", " , "], ("there is no task to run", "at least one name")),
        (["--tasks", "x", "--limit", "0"], ("limit is 0", "between 0 and 1")),
        (["--tasks", "x", "--limit", "2.5"], ("limit is 2.5", "a whole number")),
        (["--tasks", "x", "--include-path", "/no/where"], ("/no/where is no folder", "YAML")),
    ],
)
def test_wrong_options(
    refuse: Callable[..., None], arguments: list[str], words: tuple[str, ...]
) -> None:
    refuse(words, *arguments)


@pytest.mark.usefixtures("only_ours")
def test_a_missing_chat_template(
    run: Run, float_folder: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runs, "read_chat_template", lambda _folder: None)
    monkeypatch.delattr(LayerStream, "run")
    arguments = ["--tasks", CHOICES, "--include-path", tasks, "--apply-chat-template", "--quiet"]
    code, _, err = run(SAMPLE, float_folder, *arguments)
    assert code == 2
    words = ("has no chat template", "leave --apply-chat-template out")
    assert_sentence(err.strip().removeprefix("Error: "), *words)
