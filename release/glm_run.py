"""glm-run and libglm for one system, built here by a cross compiler and installed by CMake."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from onnxruntime_wheel import LICENSES, fetch_library, read_pinned_version

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "runtime" / "cpp"
_HEADER = "onnxruntime_c_api.h"
# A place for wheels, so that a second build downloads nothing.
_CACHE = ROOT / ".onnxruntime" / "wheels"
_README = """\
glm-run {version} for {name}

    {run} generate FOLDER --prompt "Hello"
    {run} --help

FOLDER is one that glm-export wrote. This archive holds glm-run, libglm with its header glm.h, and
ONNX Runtime {runtime}. Their licenses are in share/licenses.
{needs}
"""


@dataclass(frozen=True)
class Target:
    """A system to build for.

    Attributes:
        name: its name in the archive's name.
        wheels: platform tags of ONNX Runtime's wheels for it.
        library: how the library's name in the wheel begins.
        options: CMake's, for the compiler.
        needs: what the system must have, for the archive's README.
    """

    name: str
    wheels: tuple[str, ...]
    library: str
    options: dict[str, str]
    needs: str

    @property
    def is_windows(self) -> bool:
        """Whether programs end in .exe."""
        return self.name.startswith("win")


# The build id depends on the folder of the build.
_STATIC = "-static-libstdc++ -static-libgcc -Wl,--build-id=none"
_LINUX = {"CMAKE_EXE_LINKER_FLAGS": _STATIC, "CMAKE_SHARED_LINKER_FLAGS": _STATIC}
_NO_DATE = "-Wl,--no-insert-timestamp"  # else each build gives other bytes
_WINDOWS = {
    "CMAKE_TOOLCHAIN_FILE": str(SOURCE / "cmake" / "mingw-w64.cmake"),
    "CMAKE_EXE_LINKER_FLAGS": _NO_DATE,
    "CMAKE_SHARED_LINKER_FLAGS": _NO_DATE,
}
_ARM = {
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": "aarch64",
    "CMAKE_C_COMPILER": "aarch64-linux-gnu-gcc",
    "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
}
TARGETS = (
    Target(
        "linux-x64",
        ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64"),
        "libonnxruntime.so",
        _LINUX,
        "It needs a Linux with glibc {glibc} or later.",
    ),
    Target(
        "linux-arm64",
        ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64"),
        "libonnxruntime.so",
        _LINUX | _ARM,
        "It needs a Linux with glibc {glibc} or later.",
    ),
    Target(
        "win-x64",
        ("win_amd64",),
        "onnxruntime.dll",
        _WINDOWS,
        "It needs Microsoft's Visual C++ Redistributable, which ONNX Runtime uses. It was tried\n"
        "under Wine, not on Windows.",
    ),
)


def build_target(target: Target, version: str, folder: Path, scratch: Path) -> None:
    """Build and install into a folder.

    Args:
        target: the system.
        version: ours, for the README.
        folder: what the archive will hold; made here.
        scratch: a place for the build.
    """
    library = fetch_library(_CACHE, target.wheels, target.library)
    settings = {
        **target.options,
        "ONNXRUNTIME_INCLUDE": str(_find_header()),
        "ONNXRUNTIME_LIBRARY": str(library),
        "CMAKE_INSTALL_LIBDIR": "lib",
        "PYTHON": sys.executable,
    }
    built = scratch / f"build-{target.name}"
    options = [f"-D{name}={value}" for name, value in settings.items()]
    _run("cmake", "-S", SOURCE, "-B", built, *options)
    _run("cmake", "--build", built, "--parallel", os.cpu_count() or 1)
    _run("cmake", "--install", built, "--prefix", folder, "--strip")
    text = _README.format(
        version=version,
        name=target.name,
        run="bin\\glm-run" if target.is_windows else "bin/glm-run",
        runtime=read_pinned_version(),
        needs=target.needs.format(glibc="" if target.is_windows else _find_glibc(folder)),
    )
    (folder / "README.txt").write_text(text, "utf-8", newline="\r\n" if target.is_windows else "\n")


def copy_licenses(folder: Path) -> None:
    """Copy ONNX Runtime's licenses into a new folder."""
    target = TARGETS[0]
    library = fetch_library(_CACHE, target.wheels, target.library)
    folder.mkdir(parents=True)
    for name in LICENSES:
        shutil.copyfile(library.parents[2] / name, folder / Path(name).name)


def _find_header() -> Path:
    named = os.environ.get("ONNXRUNTIME_ROOT")
    roots = [Path(named)] if named else [ROOT / ".onnxruntime" / "usr", Path("/usr")]
    for root in roots:
        for header in (root / "include").glob(f"**/{_HEADER}"):
            return header.parent
    sys.exit(f"There is no {_HEADER} below {roots[0]}; run `make onnxruntime-header`.")


def _find_glibc(folder: Path) -> str:
    """The newest version of glibc that any of the programs and libraries asks for."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    binaries = [path for path in files if path.read_bytes()[:4] == b"\x7fELF"]
    symbols = _run("readelf", "--wide", "--version-info", *binaries)
    versions = set(re.findall(r"\bGLIBC_([0-9.]+)", symbols))
    newest: str = max(versions, key=lambda text: [int(part) for part in text.split(".")])
    return newest


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words[:3])} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout
