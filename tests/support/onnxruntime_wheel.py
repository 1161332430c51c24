"""ONNX Runtime's library for another system, from its Python wheel, or a skip."""

from collections.abc import Sequence
from pathlib import Path

import pytest

import onnxruntime_wheel


def fetch_library(
    cache: Path, platforms: Sequence[str], name: str, version: str | None = None
) -> Path:
    """What `release/onnxruntime_wheel.py` fetches; skips where no index can be reached."""
    try:
        return onnxruntime_wheel.fetch_library(cache, platforms, name, version)
    except onnxruntime_wheel.WheelError as error:
        pytest.skip(str(error))
