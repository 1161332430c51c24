"""One tiny folder for all tests that only read it; a copy for each test that damages it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from glm_runtime import Model, load
from runtime.tiny_folder import build_tiny_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_folder(tmp_path_factory.mktemp("folders") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> Model:
    return load(tiny_folder, device="cpu", threads=1)


@pytest.fixture
def tiny_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture
def patch_json(tiny_copy: Path) -> Callable[..., Path]:
    """Change values of one JSON file of the copy: patch_json("config.json", key=value)."""

    def patch(name: str, **values: object) -> Path:
        path = tiny_copy / name
        content = json.loads(path.read_text())
        path.write_text(json.dumps(content | values))
        return tiny_copy

    return patch
