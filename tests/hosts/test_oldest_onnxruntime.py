"""The version of ONNX Runtime that a folder needs: in the manifest, and checked before it loads.

The C library and Node refuse it in their own tests of bad input.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import FolderError, MissingDependencyError
from glm_runtime.folder.manifest import read_manifest, write_manifest
from glm_runtime.graph.version import read_version
from glm_runtime.health import examine_folder
from support.tiny_models import TinyShape, build_model, write_checkpoint

SHAPE = TinyShape(hidden_size=128)
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "int4": ({"method": "rtn"}, "1.24"),
    "int8": ({"quant": "int8", "method": "rtn"}, "1.24"),
    "float": ({"quant": "none"}, "1.24"),
    "cuda": ({"quant": "int8", "method": "rtn", "target": "cuda"}, "1.24"),
    "int2 matrices": ({"method": "rtn", "overrides": ("layers.*.down_proj=int2",)}, "1.24"),
    "int2": ({"quant": "int2", "method": "rtn"}, "1.27"),
    "int8 cache": ({"quant": "none", "kv_cache": "int8", "calibration_tokens": 128}, "1.27"),
}
_PROGRAM = """
import sys, onnxruntime, glm_runtime
assert onnxruntime.__version__.startswith("1.24"), onnxruntime.__version__
model = glm_runtime.load(sys.argv[1], device="cpu")
print(len(list(model.generate([5, 6, 7], glm_runtime.GenerationSettings(max_new_tokens=3)))))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    parent = tmp_path_factory.mktemp("versions")
    checkpoint = write_checkpoint(parent / "checkpoint", build_model(SHAPE))
    for name, (options, _) in KINDS.items():
        export(ExportOptions(checkpoint, parent / name, verify="none", **options))
    return {name: parent / name for name in KINDS}


def test_the_manifest_names_the_version(folders: dict[str, Path]) -> None:
    found = {name: read_manifest(folder).oldest_onnxruntime for name, folder in folders.items()}
    assert found == {name: oldest for name, (_, oldest) in KINDS.items()}


def need(folder: Path, version: str, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    manifest = dataclasses.replace(read_manifest(copy), oldest_onnxruntime=version)
    write_manifest(copy, manifest)
    return copy


def test_python_and_doctor_refuse(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = need(folders["int4"], "9.1", tmp_path / "new")
    words = f"onnxruntime {onnxruntime.__version__} is installed, but this folder needs 9.1"
    with pytest.raises(MissingDependencyError, match=words):
        glm_runtime.load(folder)
    assert any(words in problem for problem in examine_folder(folder, 10**12).problems)
    (folder / "glm_manifest.json").write_text(
        (folder / "glm_manifest.json").read_text("utf-8").replace('"9.1"', '"new"'), "utf-8"
    )
    with pytest.raises(FolderError, match="oldest_onnxruntime is 'new' where a version such as"):
        glm_runtime.load(folder)


def test_versions_are_compared_as_numbers() -> None:
    assert read_version("1.9.2") < read_version("1.24") < read_version("1.24.4")
    assert read_version("1.31.0.dev20260101+cu13") == (1, 31, 0)


@pytest.mark.exhaustive
def test_the_oldest_version_runs_what_the_manifest_says(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """onnxruntime 1.24 from its wheel, in a process of its own."""
    site = fetch_onnxruntime("1.24.4", tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    for name, folder in folders.items():
        command = [sys.executable, "-c", _PROGRAM, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if KINDS[name][1] == "1.24":
            assert done.stdout == "3\n", name + done.stderr
        else:
            assert "but this folder needs 1.27 or later" in done.stderr, name + done.stderr


def fetch_onnxruntime(version: str, parent: Path) -> Path:
    """Unpack a wheel that pip downloads; skips the test where there is no index."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(parent)]
    done = subprocess.run([*command, f"onnxruntime=={version}"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot download onnxruntime {version}")
    (wheel,) = parent.glob("onnxruntime-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(parent / "site")
    return parent / "site"
