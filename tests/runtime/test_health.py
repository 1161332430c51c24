import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import onnxruntime
import pytest

from glm_runtime import health
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.health import count_cache_bytes, examine_folder, examine_machine

PLENTY = 10**12


def test_the_machine_report_names_what_is_installed():
    report = examine_machine()
    assert report.onnxruntime_version == onnxruntime.__version__
    assert report.providers == tuple(onnxruntime.get_available_providers())
    assert 0 < report.memory_available_bytes <= report.memory_total_bytes
    assert report.problems == ()


def test_a_missing_onnxruntime_is_a_problem_and_the_rest_is_still_reported(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = examine_machine()
    assert report.onnxruntime_version is None
    assert "pip install onnxruntime" in report.problems[0]
    assert report.memory_total_bytes > 0


def test_two_onnxruntimes_that_overwrite_each_other_are_a_problem(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(health.metadata, "version", lambda name: "1.31.1")
    report = examine_machine()
    assert report.onnxruntime_packages == ("onnxruntime", "onnxruntime-gpu")
    assert "both installed where one is expected" in report.problems[0]


def test_an_onnxruntime_built_from_source_is_no_problem(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(health.metadata, "version", missing)
    assert examine_machine().problems == ()


def test_a_whole_folder_is_healthy(tiny_folder: Path):
    report = examine_folder(tiny_folder, PLENTY)
    assert report.problems == report.file_problems == ()
    assert report.fitting_context_length == report.context_length == 256
    # 2 (key, value) x 2 layers x 2 heads x 32 dimensions x 256 tokens x 4 bytes
    assert report.cache_bytes == 2 * 2 * 2 * 32 * 256 * 4


def test_a_changed_byte_is_a_problem_that_names_the_file(tiny_copy: Path):
    path = tiny_copy / "model.onnx.data"
    content = bytearray(path.read_bytes())
    content[1000] ^= 16
    path.write_bytes(content)
    report = examine_folder(tiny_copy, PLENTY)
    assert report.problems == (
        "model.onnx.data was changed: its SHA-256 is not the manifest's; "
        "copy the folder again or export again.",
    )


def test_a_surplus_file_is_mentioned_but_no_problem(tiny_copy: Path):
    (tiny_copy / "notes.txt").touch()
    report = examine_folder(tiny_copy, PLENTY)
    assert report.file_problems == ("notes.txt is not named by the manifest",)
    assert report.problems == ()


def test_a_folder_from_a_newer_format_is_a_problem(patch_json: Callable[..., Path]):
    report = examine_folder(patch_json("glm_manifest.json", format_version=9), PLENTY)
    assert report.format_version is None
    assert "format_version 9" in report.problems[0]


def test_the_context_that_fits_is_what_the_memory_leaves(tiny_folder: Path):
    model = read_manifest(tiny_folder).model
    weight_bytes = examine_folder(tiny_folder, PLENTY).weight_bytes
    available = weight_bytes + count_cache_bytes(model, 100) + 1
    report = examine_folder(tiny_folder, available)
    assert report.fitting_context_length == 100
    assert report.problems == ()


def test_weights_that_do_not_fit_are_a_problem(tiny_folder: Path):
    report = examine_folder(tiny_folder, 1000)
    assert report.fitting_context_length == 0
    assert "of memory are available; close other programs" in report.problems[0]
