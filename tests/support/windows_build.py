"""Builds `runtime/cpp` for Windows and runs it under Wine, or says why that cannot be done here.

ONNX Runtime's library for Windows is taken from its wheel, of the version that constraints.txt
pins; pip fetches it once into pytest's cache.
"""

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from support.cpp_build import PAGE, SOURCE, build_as_documented, make_checkout
from support.onnxruntime_wheel import fetch_library
from support.weaker_processor import limit_other_library

PROGRAMS = Path(__file__).parents[1] / "hosts" / "windows"
COMPILER = "x86_64-w64-mingw32-gcc-posix"
_TOOLS = ("cmake", COMPILER, "x86_64-w64-mingw32-g++-posix")
_PATIENCE_SECONDS = 900  # for a busy machine


class Wine:
    """A Windows of its own, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make the folder; skips the test where Wine is missing."""
        require_tools("wine")
        drop = {"DISPLAY", "WAYLAND_DISPLAY"}
        kept = {name: value for name, value in os.environ.items() if name not in drop}
        # Without Mono and Gecko, which it would offer to install.
        overrides = {
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
            "LC_ALL": "C.UTF-8",
        }
        self.environment = {**kept, **overrides, "WINEPREFIX": str(folder)}
        self.system = folder / "drive_c" / "windows" / "system32"
        done = self.run("wineboot", "--init")
        assert done.returncode == 0, done.stderr
        # Node asks for Windows 8.1 or later.
        version = ("/v", "Version", "/d", "win10", "/f")
        assert self.run("reg", "add", r"HKCU\Software\Wine", *version).returncode == 0

    def run(
        self, *command: object, cwd: Path | None = None, text: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a program; stdin is `text`, since Wine makes nothing usable of /dev/null.

        Files take the output: Wine's services, which live on for seconds, keep pipes open.
        """
        with TemporaryFile() as output, TemporaryFile() as errors:
            done = subprocess.run(
                ["wine", *map(str, command)],
                cwd=cwd,
                env=self.environment,
                input=text,
                stdout=output,
                stderr=errors,
                check=False,
                timeout=_PATIENCE_SECONDS,
            )
            for file in (output, errors):
                file.seek(0)
            return subprocess.CompletedProcess(
                done.args, done.returncode, output.read(), errors.read()
            )

    def close(self) -> None:
        """End the services of this folder, and nobody else's."""
        subprocess.run(["wineserver", "--kill"], env=self.environment, check=False)


def require_tools(*tools: str) -> None:
    """Skip the test where a tool is missing."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: see docs/cpp.md, Windows")


def fetch_dll(cache: Path, version: str | None = None) -> Path:
    """onnxruntime.dll of a version, from its wheel."""
    return limit_other_library(fetch_library(cache, ["win_amd64"], "onnxruntime.dll", version))


def build_for_windows(folder: Path, library: Path) -> Path:
    """glm.dll, glm-run.exe, onnxruntime.dll and the tests' own programs, in one folder.

    By the commands of docs/cpp.md.
    """
    require_tools(*_TOOLS)
    checkout = make_checkout(folder)
    shown = build_as_documented(PAGE, "mingw-w64", checkout, library)
    assert "warning:" not in shown, shown
    built = checkout / "build-windows"
    compile_program(PROGRAMS / "library.c", built / "library.exe", built=built)
    compile_program(PROGRAMS / "launch.c", built / "launch.exe", "-municode")
    return built


def compile_program(source: Path, output: Path, *options: str, built: Path | None = None) -> None:
    """A C program for Windows; over glm.dll where its folder is given."""
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{SOURCE / 'include'}", *options]
    links = [] if built is None else [str(built / "libglm.dll.a")]
    _run([COMPILER, *flags, str(source), *links, "-o", str(output)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "warning:" not in done.stdout + done.stderr, done.stdout + done.stderr
