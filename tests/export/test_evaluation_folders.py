"""`glm-eval` with several folders: each row is what the folder alone gives; the work is shared."""

import json
import shutil
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from glm_export import ExportOptions, evaluate_cli, export
from glm_export.evaluation.comparison import Comparison
from glm_export.evaluation.evaluate import EvaluationReport, FolderReport, evaluate
from glm_export.evaluation.inputs import EvaluationOptions, name_folders
from glm_export.evaluation.table import format_json, format_table
from glm_export.model.layer_stream import LayerStream
from glm_runtime.progress import ignore_progress
from support.broken_checkpoints import write_small

TEXT = "In the beginning was the Word. 太初有道。" * 3
FIGURES = {
    "perplexity",
    "reference_perplexity",
    "kl_mean",
    "kl_p99",
    "top1_agreement",
    "bits_per_weight",
    "size_bytes",
    "tokens",
}
NAMES = ("none", "int8", "int4")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, three exports of it, a text."""
    root = tmp_path_factory.mktemp("exported")
    write_small(root / "checkpoint")
    for quant in NAMES:
        method = "none" if quant == "none" else "rtn"
        block_size = None if quant == "none" else 32
        options = {"quant": quant, "block_size": block_size, "verify": "none"}
        if method != "none":
            options["method"] = method
        export(ExportOptions(root / "checkpoint", root / quant, **options))
    (root / "text.txt").write_text(TEXT, encoding="utf-8")
    return root


def options_of(root: Path, *names: str, has_layers: bool = False) -> EvaluationOptions:
    folders = tuple(root / name for name in names)
    return EvaluationOptions(
        root / "checkpoint", folders, root / "text.txt", window=16, has_layers=has_layers
    )


def test_each_folder_as_if_it_were_alone(root: Path) -> None:
    together = evaluate(options_of(root, *NAMES, has_layers=True), ignore_progress)
    assert [report.name for report in together.folders] == list(NAMES)
    assert together.checkpoint == "checkpoint"
    for name, found in zip(NAMES, together.folders, strict=True):
        (alone,) = evaluate(options_of(root, name), ignore_progress).folders
        assert found.comparison == alone.comparison  # to the last bit, with layers and without
        assert alone.layer_errors is None
    kl = [report.comparison.kl_mean for report in together.folders]
    assert kl[0] < 1e-6 < kl[1] < kl[2]


def test_the_original_runs_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call a length of windows: 16 tokens, and what is left of the text."""
    calls = []
    run = LayerStream.run

    def count(self: LayerStream, ids):
        calls.append(ids.shape)
        return run(self, ids)

    monkeypatch.setattr(LayerStream, "run", count)
    evaluate(options_of(root, *NAMES), ignore_progress)
    assert len(calls) == len({length for _, length in calls}) == 2


def test_one_session_is_open_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = set(), []

    class Counted(onnxruntime.InferenceSession):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            alive.add(id(self))
            most.append(len(alive))
            weakref.finalize(self, alive.discard, id(self))

    monkeypatch.setattr(onnxruntime, "InferenceSession", Counted)
    evaluate(options_of(root, *NAMES, has_layers=True), ignore_progress)
    assert most == [1, 1, 1]


def test_progress_names_the_folder(root: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def note(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, []).append((done, total))

    evaluate(options_of(root, "int8", "int4"), note)
    assert list(seen) == [
        *("checking int8", "checking int4", "running the original"),
        *("running int8", "running int4"),
    ]
    for stage in list(seen)[2:]:
        total = seen[stage][0][1]
        assert seen[stage] == [(done, total) for done in range(total + 1)]


def test_relative_folders_with_layers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime finds the weights of an edited graph wherever it was started."""
    monkeypatch.chdir(root / "int4")
    options = EvaluationOptions(
        Path("../checkpoint"), (Path(), Path("../int8")), window=16, max_tokens=32, has_layers=True
    )
    report = evaluate(options, ignore_progress)
    assert (report.checkpoint, report.layer_tokens) == ("checkpoint", 32)
    assert [folder.name for folder in report.folders] == ["int4", "int8"]


def test_a_chinese_folder_with_layers(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "int4", tmp_path / "量化")
    options = options_of(root, "int4", str(tmp_path / "量化"), has_layers=True)
    first, second = evaluate(options, ignore_progress).folders
    assert second.name == "量化"
    assert first.layer_errors == second.layer_errors


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/int4"], ["int4"]),
        (["/x/int4", "/x/int8"], ["int4", "int8"]),
        (["/x/rtn/out", "/x/gptq/out"], ["rtn/out", "gptq/out"]),
        (["/x/a/b/c", "/y/a/b/c", "/z"], ["x/a/b/c", "y/a/b/c", "/z"]),
        (["/x/bad\n\x1b[2Jname"], ["bad??[2Jname"]),
        (["/x/a\n", "/x/a\t"], ["/x/a?", "/x/a?"]),
    ],
)
def test_names(folders: list[str], names: list[str]) -> None:
    assert name_folders([Path(folder) for folder in folders]) == names


# --- tables and JSON


def report_of(
    name: str, perplexity: float, kl: float, layer_errors: tuple[float, ...] | None = None
) -> FolderReport:
    comparison = Comparison(2048, perplexity, 50.0, kl, 4 * kl, 0.875)
    manifest = SimpleNamespace(bits_per_weight=5.157, size_bytes=4_267_712)
    return FolderReport(Path("/x") / name, name, comparison, manifest, layer_errors)


def test_the_table_of_one_folder() -> None:
    report = EvaluationReport("sample", (report_of("int4", 51.0, 0.026223),), 0)
    assert format_table(report).splitlines() == [
        "perplexity, original            50.000",
        "perplexity, folder              51.000  (+2.00%)",
        "KL divergence, mean             0.02622 nats",
        "KL divergence, 99th percentile  0.10489 nats",
        "top-1 agreement                 87.50%",
        "bits per weight                 5.16",
        "size                            4.27 MB",
        "tokens compared                 2,048",
    ]


def test_the_table_of_several_folders() -> None:
    """Chinese characters take two columns of a terminal."""
    folders = (report_of("int4", 51.0, 0.026223), report_of("量化4", 49.0, 0.5))
    assert format_table(EvaluationReport("sample", folders, 0)).splitlines() == [
        "folder  bits/weight     size  perplexity  change  KL mean   KL p99   top-1",
        "int4           5.16  4.27 MB      51.000  +2.00%  0.02622  0.10489  87.50%",
        "量化4          5.16  4.27 MB      49.000  -2.00%  0.50000  2.00000  87.50%",
        "2,048 tokens; perplexity of the original 50.000; KL in nats",
    ]


def test_json_of_one_folder() -> None:
    alone = json.loads(format_json(EvaluationReport("s", (report_of("a", 51.0, 0.1),), 0)))
    assert set(alone) == FIGURES
    assert (alone["perplexity"], alone["kl_p99"], alone["tokens"]) == (51.0, 0.4, 2048)
    folder = report_of("a", 51.0, 0.1, (0.0, 0.25))
    assert json.loads(format_json(EvaluationReport("s", (folder,), 9))) == {
        **alone,
        "layer_errors": [0.0, 0.25],
    }


def test_json_of_several_folders() -> None:
    folders = tuple(report_of(name, 51.0, 0.1, (0.0, 0.25)) for name in ("a", "b"))
    found = json.loads(format_json(EvaluationReport("s", folders, 9)))
    assert set(found) == {"reference_perplexity", "tokens", "folders"}
    assert (found["reference_perplexity"], found["tokens"]) == (50.0, 2048)
    assert [row["folder"] for row in found["folders"]] == ["/x/a", "/x/b"]
    for row in found["folders"]:
        assert set(row) == {"folder", "layer_errors"} | FIGURES


@pytest.mark.parametrize("is_json", [False, True])
def test_the_command(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_json: bool,
) -> None:
    paths = [str(root / name) for name in ("checkpoint", *NAMES)]
    options = ["--text", str(root / "text.txt"), "--window", "16", "--quiet"]
    json_option = ["--json"] if is_json else []
    monkeypatch.setattr(sys, "argv", ["glm-eval", *paths, *options, *json_option])
    with pytest.raises(SystemExit) as caught:
        evaluate_cli.main()
    out, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    if is_json:
        rows = json.loads(out)["folders"]
        assert [row["folder"] for row in rows] == paths[1:]
        assert all(set(row) == {"folder"} | FIGURES for row in rows)
    else:
        table, _, differences = out.partition("\n\n")
        assert [line.split()[0] for line in table.splitlines()[1:-1]] == list(NAMES)
        # The original, then the first folder.
        compared = [line.split()[:2] for line in differences.splitlines()[1:-1]]
        assert compared.count(["int4", "original"]) == 2
        assert compared.count(["int4", "none"]) == 3
        assert "worse" in differences
