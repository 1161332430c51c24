"""Mixed precision meets its budget, spends it where it matters, and refuses what cannot be."""

import json
from pathlib import Path

import pytest

from glm_export import ExportOptions, export
from glm_export.errors import OptionsError
from support.refusals import assert_sentence, nothing_left_behind
from support.tiny_models import TinyShape, build_model, write_checkpoint


def export_within(folder: Path, bits: float | None, **options: object) -> tuple[float, list[str]]:
    """Bits a weight and the schemes of a tiny model's export."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        write_checkpoint(checkpoint, build_model(TinyShape()))
    output = folder / f"out-{bits}-{len(options)}"
    asked = ExportOptions(
        checkpoint, output, bits_per_weight=bits, calibration_tokens=1024, verify="none", **options
    )
    report = export(asked)
    tensors = json.loads((output / "glm_manifest.json").read_text())["tensors"]
    return report.bits_per_weight, [t["scheme"] for t in tensors if t["scheme"].startswith("int")]


@pytest.mark.parametrize("bits", [5.0, 6.5, 9.0])
def test_a_budget_is_met_and_nearly_used_up(tmp_path: Path, bits: float) -> None:
    """A tiny model has eleven matrices: the step between assignments is well below 0.3 bits."""
    found, schemes = export_within(tmp_path, bits)
    assert bits - 0.3 < found <= bits
    assert {name[:4] for name in schemes} <= {"int4", "int8"}


def test_overrides_are_kept_and_count(tmp_path: Path) -> None:
    found, schemes = export_within(tmp_path, 6.0, overrides=("lm_head=int8-b32-asym",))
    assert found <= 6.0
    assert schemes[-1] == "int8-b32-asym"


def test_an_impossible_budget_names_the_nearest(tmp_path: Path) -> None:
    """And that one is possible."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint", build_model(TinyShape()))
    options = ExportOptions(checkpoint, tmp_path / "out", bits_per_weight=3.0)
    with nothing_left_behind(tmp_path), pytest.raises(OptionsError) as caught:
        export(options)
    assert_sentence(str(caught.value), "bits per weight 3 is requested", "at least", "or more")
    nearest = float(str(caught.value).split("at least ")[1].split(";")[0])
    assert export_within(tmp_path, nearest)[0] <= nearest
