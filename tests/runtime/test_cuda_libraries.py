"""What is said where CUDA's libraries are missing. The libraries here are real, and small."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from glm_runtime.graph import cuda


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Where a provider's library would be, which needs a library that is not there."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    return capi


def link(capi: Path, needed: str) -> None:
    """Make a provider's library that needs another one, then delete that one."""
    source = capi / "empty.c"
    source.write_text("int nothing;")
    other, provider = capi / needed, capi / "libonnxruntime_providers_cuda.so"
    shared = ["cc", "-shared", "-fPIC", "-Wl,--no-as-needed"]
    subprocess.run([*shared, f"-Wl,-soname,{needed}", "-o", other, source], check=True)
    subprocess.run([*shared, "-o", provider, source, other], check=True)
    other.unlink()


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (
            "libcublasLt.so.13",
            "(libcublasLt.so.13 is missing); install CUDA's libraries with "
            "`pip install 'onnxruntime-gpu[cuda,cudnn]'`",
        ),
        ("libcuda.so.1", "(libcuda.so.1 is missing); install the driver of the NVIDIA GPU"),
    ],
)
def test_the_missing_library_is_named(needed: str, words: str, package: Path) -> None:
    link(package, needed)
    assert cuda.find_missing_library(package) == needed
    runtime = SimpleNamespace(__file__=str(package.parent / "__init__.py"))
    assert cuda.explain_failure(runtime, "onnxruntime uses the CPU instead") == words


def test_without_a_missing_library_the_reason_is_kept(tmp_path: Path) -> None:
    runtime = SimpleNamespace(__file__=str(tmp_path / "onnxruntime" / "__init__.py"))
    assert cuda.explain_failure(runtime, "no device") == (
        "(no device); check `nvidia-smi` and the versions of CUDA and cuDNN"
    )


def test_preloading_prints_nothing_and_fails_never(capfd: pytest.CaptureFixture[str]) -> None:
    """onnxruntime's function prints to stdout, where only results belong."""
    calls = []

    def preload_dlls() -> None:
        calls.append(True)
        print("Failed to load libcublas.so.13")
        raise RuntimeError("no folder")

    cuda.preload_libraries(SimpleNamespace(preload_dlls=preload_dlls))
    cuda.preload_libraries(SimpleNamespace())  # onnxruntime before 1.21
    assert calls == [True]
    assert capfd.readouterr().out == ""
