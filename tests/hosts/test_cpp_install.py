"""`cmake --install` writes a folder that can be moved; examples/c is built with it and answers."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import glm_export
import glm_runtime
from glm_runtime import GenerationSettings, SamplingSettings
from support.cpp_build import build
from support.cpp_library import Library

EXAMPLE = Path(__file__).parents[2] / "examples" / "c"
QUESTION = "背诵李白的《静夜思》。"
ONNXRUNTIME = "libonnxruntime.so.1"
Builder = Callable[[Path, Path], Path]


def run(*command: object, **variables: str) -> str:
    """The output of a command that finds no library but by its own means."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    words = [str(word) for word in command]
    environment: Mapping[str, str] = {**kept, **variables}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed folder, which was moved since."""
    parent = tmp_path_factory.mktemp("install")
    run("cmake", "--install", built, "--prefix", parent / "first place")
    return (parent / "first place").rename(parent / "second-place")


@pytest.fixture(scope="module")
def expected(python_model: glm_runtime.Model) -> str:
    settings = GenerationSettings(SamplingSettings(temperature=0), 256)
    pieces = python_model.chat([{"role": "user", "content": QUESTION}], settings)
    return "".join(piece.text for piece in pieces) + "\n"


def find_onnxruntime(program: Path) -> Path:
    """The library that the loader takes for the program."""
    (found,) = re.findall(rf"{ONNXRUNTIME} => (\S+)", run("ldd", program))
    return Path(found).resolve()


def build_by_cmake(installed: Path, folder: Path) -> Path:
    run("cmake", "-S", EXAMPLE, "-B", folder, f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", folder)
    return folder / "ask"


def build_by_pkg_config(installed: Path, folder: Path) -> Path:
    if shutil.which("pkg-config") is None:
        pytest.skip("pkg-config is not installed")
    place = str(installed / "lib" / "pkgconfig")
    flags = run("pkg-config", "--cflags", "--libs", "glm", PKG_CONFIG_PATH=place).split()
    strict = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
    folder.mkdir()
    links = (*flags, f"-Wl,-rpath,{installed / 'lib'}")
    run("cc", *strict, EXAMPLE / "main.c", *links, "-o", folder / "ask")
    return folder / "ask"


def test_the_installed_program(installed: Path, folder: Path, expected: str) -> None:
    """It runs from its new place, with the library beside it and no other."""
    program = installed / "bin" / "glm-run"
    options = ("--prompt", QUESTION, "--greedy", "--max-new-tokens", 256)
    assert run(program, "generate", folder, *options) == expected
    assert find_onnxruntime(program) == (installed / "lib" / ONNXRUNTIME).resolve()


@pytest.mark.parametrize("build_example", [build_by_cmake, build_by_pkg_config])
def test_the_example(
    build_example: Builder, installed: Path, folder: Path, expected: str, tmp_path: Path
) -> None:
    program = build_example(installed, tmp_path / "example")
    assert run(program, folder, QUESTION) == expected
    assert find_onnxruntime(program) == (installed / "lib" / ONNXRUNTIME).resolve()


def test_no_file_names_a_place(installed: Path, built: Path) -> None:
    """Neither the build folder nor the folder that it was first installed into."""
    places = (str(built).encode(), b"first place")
    assert b"GLM_OK" in (installed / "include" / "glm.h").read_bytes()
    for path in installed.rglob("*"):
        if path.is_file():
            assert not any(place in path.read_bytes() for place in places), path


def test_the_version(installed: Path, library: Library) -> None:
    """That of the Python package, wherever it is asked for."""
    version = glm_export.__version__
    assert run(installed / "bin" / "glm-run", "--version") == f"glm-run, version {version}\n"
    assert library.c.glm_version().decode() == version
    found = run(
        "pkg-config", "--modversion", "glm", PKG_CONFIG_PATH=str(installed / "lib" / "pkgconfig")
    )
    assert version.startswith(found.strip())


@pytest.mark.exhaustive
def test_a_static_library(folder: Path, expected: str, tmp_path: Path) -> None:
    built = build(tmp_path / "built", "-DBUILD_SHARED_LIBS=OFF")
    installed = tmp_path / "installed"
    run("cmake", "--install", built, "--prefix", installed)
    assert not list(installed.rglob("libglm.so*"))
    for number, build_example in enumerate((build_by_cmake, build_by_pkg_config)):
        program = build_example(installed, tmp_path / str(number))
        assert run(program, folder, QUESTION) == expected


def test_a_version_is_needed(tmp_path: Path, built: Path) -> None:
    """A copy of the folder without the Python package's file says so."""
    copy = shutil.copytree(EXAMPLE.parents[1] / "runtime" / "cpp", tmp_path / "a" / "b" / "cpp")
    command = ["cmake", "-S", str(copy), "-B", str(tmp_path / "build")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "The version of glm is unknown" in done.stderr
    assert built.is_dir()
