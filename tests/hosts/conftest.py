"""One folder for all hosts, and one build of the C++ runtime."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import glm_runtime
from glm_export import ExportOptions, export
from support import cpp_library as cpp
from support.cpp_build import README, build_as_documented, make_checkout
from support.cpp_library import Library
from support.shared_traces import shared_traces  # noqa: F401
from support.windows_build import Wine

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the README's commands build, in a copy of the repository.

    It is built once, also for several workers of pytest-xdist, whose folders have one parent.
    """
    parent = tmp_path_factory.getbasetemp()
    checkout = (parent.parent if "PYTEST_XDIST_WORKER" in os.environ else parent) / "cpp"
    with FileLock(checkout.with_suffix(".lock")):
        if not (checkout / "is_built").exists():
            shutil.rmtree(checkout, ignore_errors=True)  # a worker failed
            build_as_documented(README, "-S runtime/cpp", make_checkout(checkout))
            (checkout / "is_built").touch()
    return checkout / "build"


@pytest.fixture(scope="session")
def library(built: Path) -> Library:
    return Library(built / "libglm.so")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample in int4 with conformance vectors; kernels round activations to int8."""
    return _export(tmp_path_factory.mktemp("folder") / "int4")


@pytest.fixture(scope="session")
def float_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, activations in float: tokens depend on no processor and no batch size."""
    return _export(tmp_path_factory.mktemp("float") / "int4", accuracy_level=0)


@pytest.fixture(scope="session")
def model(library: Library, folder: Path) -> Iterator[cpp.Model]:
    model = library.load(folder)
    yield model
    model.close()


@pytest.fixture(scope="session")
def python_model(folder: Path) -> glm_runtime.Model:
    return glm_runtime.load(folder, device="cpu")


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    """Where libraries and programs for Windows are kept from one run to the next."""
    return pytestconfig.cache.mkdir("windows")


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wine]:
    wine = Wine(tmp_path_factory.mktemp("wine") / "prefix")
    yield wine
    wine.close()


@pytest.fixture
def session(model: cpp.Model) -> Iterator[cpp.Session]:
    session = model.new_session()
    yield session
    session.close()


def _export(output: Path, accuracy_level: int | None = None) -> Path:
    options = ExportOptions(
        SAMPLE,
        output,
        method="rtn",
        verify="none",
        threads=2,
        has_conformance=True,
        accuracy_level=accuracy_level,
    )
    export(options)
    return output
