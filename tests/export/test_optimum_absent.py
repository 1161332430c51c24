"""What is there for Optimum neither fails nor disturbs where Optimum does not fit."""

import importlib
import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "export" / "optimum_plugin" / "register_glm_export.py"

pytestmark = pytest.mark.usefixtures("no_optimum")


@pytest.fixture
def no_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed."""
    ours = ("optimum.", "glm_export.optimum")
    for name in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optimum", None)


def test_the_configuration_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r"pip install 'optimum-onnx\[onnxruntime\]'"):
        importlib.import_module("glm_export.optimum_config")


@pytest.mark.parametrize("command", ["export onnx", "export openvino", "env"])
def test_other_models_can_be_exported_all_the_same(
    command: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that cannot be imported, as a later Optimum's may be, is worth a warning."""
    monkeypatch.setattr(sys, "argv", ["optimum-cli", *command.split()])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    runpy.run_path(str(PLUGIN))
    assert ("Optimum will not know GLM-4" in caplog.text) == (command == "export onnx")
