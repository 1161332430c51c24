"""The page in headless Chromium, run by node's test runner and Playwright.

Needs Debian's `chromium` (or a path in CHROMIUM) and what `support/npm_packages.py` needs.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from glm_export import ExportOptions, export
from support import npm_packages
from support.chatglm_checkpoints import write_chatglm
from support.chromium import find_chromium
from support.tiny_models import TinyShape, build_model

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "runtime" / "web"
NODE = ROOT / "runtime" / "node"
SAMPLE = ROOT / "artifacts" / "glm4-sample"
FAST: dict[str, Any] = {"method": "rtn", "verify": "none", "has_conformance": True}
KINDS: dict[str, dict[str, Any]] = {
    "fp16": {"dtype": "fp16"},
    "int8": {"quant": "int8"},
    "int8 cache": {"kv_cache": "int8"},
}
NAMES = ("conformance", "page", "opening", "storage", "bad_input", "webgpu")


@pytest.fixture(scope="module")
def browser() -> str:
    return find_chromium()


@pytest.fixture(scope="module")
def package(browser: str) -> Path:
    """The package, and its page built."""
    npm_packages.install(PACKAGE)
    done = npm_packages.run(["npm", "run", "build"], PACKAGE)
    assert done.returncode == 0, done.stderr
    return PACKAGE


@pytest.fixture(scope="module")
def environment(browser: str, folder: Path, float_folder: Path) -> dict[str, str]:
    return {
        "CHROMIUM": browser,
        "GLM_FOLDER": str(folder),
        "GLM_EXACT_FOLDER": str(float_folder),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("conformance", "page", "opening", "bad_input", "readme"),
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("storage", "webgpu")),
    ],
)
def test_the_page(name: str, package: Path, environment: dict[str, str]) -> None:
    npm_packages.run_tests(package, name, environment)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_variants(name: str, package: Path, environment: dict[str, str]) -> None:
    npm_packages.run_tests(package, name, {**environment, "GLM_EXHAUSTIVE": "1"})


@pytest.mark.slow
@pytest.mark.exhaustive
def test_other_folders(package: Path, environment: dict[str, str], tmp_path: Path) -> None:
    model = build_model(TinyShape(model_type="glm", rope_theta=5_000_000.0))
    folders = {"chatglm": tmp_path / "chatglm"}
    checkpoint = write_chatglm(tmp_path / "checkpoint", model, 500.0)
    export(ExportOptions(checkpoint, folders["chatglm"], **FAST))
    for kind, changes in KINDS.items():
        folders[kind] = tmp_path / kind
        export(ExportOptions(SAMPLE, folders[kind], **FAST, **changes))
    kinds = json.dumps({kind: str(folder) for kind, folder in folders.items()})
    npm_packages.run_tests(package, "kinds", {**environment, "GLM_KINDS": kinds})


@pytest.mark.slow
def test_types_are_right(package: Path) -> None:
    done = npm_packages.run(["npx", "--no-install", "tsc", "--noEmit"], package)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_packages_pin_the_same() -> None:
    """The page is built of runtime/node's modules with the packages that are installed here."""
    ours, theirs = (
        json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
        for folder in (PACKAGE, NODE)
    )
    shared = [name for name in ours if name in theirs and name]
    assert {"node_modules/@huggingface/jinja", "node_modules/onnxruntime-common"} <= set(shared)
    for name in ("jinja", "tokenizers"):
        path = f"node_modules/@huggingface/{name}"
        assert ours[path]["version"] == theirs[path]["version"]


def test_no_script_is_too_long() -> None:
    paths = [path for part in ("src", "page", "test") for path in (PACKAGE / part).glob("*.js")]
    assert len(paths) > 20
    for path in paths:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
