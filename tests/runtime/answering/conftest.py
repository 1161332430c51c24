"""A tiny model whose context is long enough for several chunks and for buffers that grow."""

import pytest

from glm_runtime import Model, load
from runtime.greedy_answers import with_eos
from runtime.tiny_folder import TinyShape, build_tiny_folder


@pytest.fixture(scope="session")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    shape = TinyShape(context_length=2048)
    folder = build_tiny_folder(tmp_path_factory.mktemp("folders") / "long", shape)
    return with_eos(load(folder, device="cpu", threads=1), *range(40, 43))
