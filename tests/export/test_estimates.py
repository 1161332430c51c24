"""`--plan` tells the truth about sizes, comes near in memory, and writes nothing.

Its seconds are compared with real ones by `python -m benchmarks.memory full-size`, never here.
"""

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from glm_export import ExportOptions, estimate, export
from glm_export.errors import OptionsError, OutputError
from glm_export.estimates import ExportEstimate, StageEstimate
from glm_export.plan_text import render_estimate
from glm_runtime.folder.manifest import read_manifest
from support.broken_checkpoints import WEIGHTS, write_small
from support.commands import run_command
from support.refusals import assert_sentence, nothing_left_behind

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"


@pytest.mark.parametrize(
    "recipe",
    [
        {"quant": "none"},
        {"method": "rtn"},
        {"quant": "int8", "block_size": 32, "is_symmetric": True},
        {"method": "hqq", "overrides": ("lm_head=none", "layers.0.o_proj=int8-b32")},
        {"method": "rtn", "target": "cuda", "verify": "tensors"},
    ],
    ids=str,
)
def test_sizes_are_those_of_the_export(tmp_path: Path, recipe: dict[str, object]) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    options = ExportOptions(checkpoint, tmp_path / "out", **recipe)  # type: ignore[arg-type]
    with nothing_left_behind(tmp_path):
        found = estimate(options)
    report = export(options)
    manifest = read_manifest(tmp_path / "out")
    assert found.size_bytes == manifest.files["model.onnx.data"].size_bytes
    assert found.bits_per_weight == report.bits_per_weight == manifest.bits_per_weight
    assert found.parameters == manifest.parameters
    assert report.source_bytes == (checkpoint / WEIGHTS).stat().st_size
    assert manifest.recipe.method == found.method
    assert found.verification == report.verification["level"]
    assert found.tensors == {tensor.name: tensor.scheme for tensor in manifest.tensors}
    assert sum(count for count, _ in found.schemes.values()) == len(manifest.tensors)
    assert sum(size for _, size in found.schemes.values()) <= found.size_bytes


def test_a_mixed_recipe_keeps_within_the_size(tmp_path: Path) -> None:
    options = ExportOptions(
        SAMPLE, tmp_path / "out", bits_per_weight=5.5, calibration_tokens=1024, verify="none"
    )
    found = estimate(options)
    assert found.is_mixed and found.bits_per_weight == 5.5
    assert set(found.tensors.values()) == {"to be chosen", "fp32"}
    names = [stage.name for stage in found.stages]
    assert names[:2] == ["measuring sensitivity", "calibrating"]
    report = export(options)
    made = (tmp_path / "out" / "model.onnx.data").stat().st_size
    alignment = 4096 * len(read_manifest(tmp_path / "out").tensors)
    assert 0.95 * found.size_bytes < made < found.size_bytes + alignment
    assert report.bits_per_weight <= 5.5


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", [("--method", "rtn"), ()], ids=["rtn", "default"])
def test_memory_comes_near(tmp_path: Path, recipe: tuple[str, ...]) -> None:
    """Python and torch are most of it here; the constants' larger terms need larger models."""
    arguments = (SAMPLE, "-o", tmp_path / "out", *recipe, "--verify", "tensors", "--json")
    planned = json.loads(run_command("glm-export", *arguments, "--plan")[1])
    done = json.loads(run_command("glm-export", *arguments)[1])
    assert 0.6 < planned["peak_rss_bytes"] / done["peak_rss_bytes"] < 1.6


def test_the_command_needs_no_output(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    with nothing_left_behind(tmp_path):
        code, out, err = run_command(
            "glm-export", checkpoint, "--plan", "--method", "rtn", "--quiet"
        )
    assert (code, err) == (0, "")
    assert "int4-b32" in out and "about" in out and "in all" in out
    code, out, err = run_command("glm-export", checkpoint, "--method", "rtn")
    assert (code, out) == (2, "")
    assert "Missing option '-o' / '--output'" in err


def test_what_export_refuses_is_refused(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    (checkpoint / WEIGHTS).write_bytes(b"no weights")
    code, out, err = run_command("glm-export", checkpoint, "--plan")
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {WEIGHTS} has 10 bytes")


def test_a_size_that_is_too_small_is_refused_as_by_the_export(tmp_path: Path) -> None:
    """--plan printed a plan that the export then refused."""
    options = ExportOptions(SAMPLE, tmp_path / "out", bits_per_weight=1.0)
    with pytest.raises(OptionsError, match=r"bits per weight 1 is requested, .* at least 4\.165"):
        estimate(options)


def test_sizes_are_told_in_a_fitting_unit() -> None:
    """9 billion weights were "9,400 million parameters" and "6,033.3 MB"."""
    large = replace(make(()), parameters=9_400_000_000, size_bytes=6_033_300_000)
    assert "9.4 billion parameters" in render_estimate(large)
    assert "size         6.03 GB" in render_estimate(large)


def test_kept_work_and_a_small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "verifying":
            raise KeyboardInterrupt

    checkpoint = write_small(tmp_path / "checkpoint")
    options = ExportOptions(checkpoint, tmp_path / "deep" / "out", method="rtn")
    assert estimate(options).kept_bytes == 0
    with pytest.raises(KeyboardInterrupt):
        export(options, stop)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    found = estimate(options)
    assert found.kept_bytes > found.size_bytes * 0.9
    assert found.disk_bytes < found.size_bytes
    text = render_estimate(found)
    assert "interrupted export" in text and ("too small" in text) == (found.disk_bytes > 0)


def test_an_output_that_exists_is_noted(tmp_path: Path) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    (tmp_path / "out").mkdir()
    options = ExportOptions(checkpoint, tmp_path / "out", method="rtn")
    assert any("needs another -o" in note for note in estimate(options).notes)
    forced = estimate(replace(options, is_forced=True)).notes
    assert not any("needs another -o" in note for note in forced)


def test_no_room_for_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    options = ExportOptions(write_small(tmp_path / "checkpoint"), tmp_path / "out", method="rtn")
    with pytest.raises(OutputError) as caught:
        estimate(options)
    assert_sentence(str(caught.value), "speed could not be measured (", "TMPDIR")


def test_seconds_are_told_in_a_fitting_unit() -> None:
    stages = tuple(StageEstimate(str(s), s) for s in (0.1, 59, 61, 7200))
    text = render_estimate(make(stages))
    for words in ("about 1 s ", "about 59 s", "about 1 min", "about 2 h 0 min"):
        assert words in text


def make(stages: tuple[StageEstimate, ...]) -> ExportEstimate:
    return ExportEstimate(
        name="x",
        model_type="glm4",
        parameters=1,
        method="rtn",
        schemes={},
        tensors={},
        is_mixed=True,
        size_bytes=1,
        bits_per_weight=4.0,
        disk_bytes=0,
        free_disk_bytes=1,
        peak_rss_bytes=1,
        stages=stages,
        verification="full",
        kept_bytes=0,
        notes=("Mind this.",),
    )
