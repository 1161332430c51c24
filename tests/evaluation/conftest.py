"""The sample in float32 and in int4, each beside lm-eval's own model of the same weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from glm_export import ExportOptions, export
from support.verse_tasks import ROOT, write_tasks

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

    from glm_lm_eval.model import GlmOnnx

SAMPLE = ROOT / "artifacts" / "glm4-sample"


@pytest.fixture(
    scope="session", params=[pytest.param("none", marks=pytest.mark.exhaustive), "int4"]
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with float activations, so that only rounding differs from transformers."""
    output = tmp_path_factory.mktemp("evaluated") / f"sample-{request.param}"
    recipe: dict[str, Any] = {}
    if request.param == "int4":
        recipe = {"method": "rtn", "accuracy_level": 0}
    export(ExportOptions(SAMPLE, output, quant=request.param, verify="none", **recipe))
    return output


@pytest.fixture(scope="session")
def ours(folder: Path) -> "GlmOnnx":
    from support.harness_models import open_ours  # noqa: PLC0415  # lm-eval is optional

    return open_ours(folder)


@pytest.fixture(scope="session")
def theirs(folder: Path) -> "HFLM":
    from support.harness_models import open_theirs  # noqa: PLC0415  # lm-eval is optional

    return open_theirs(folder)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "verses")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
