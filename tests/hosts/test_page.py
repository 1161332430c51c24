"""Every block of runtime/README.md runs on the sample model, but those marked as not run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support import npm_packages

RUNTIME = Path(__file__).parents[2] / "runtime"
PAGE = (RUNTIME / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^## (.*?)\n|^```(\w[\w ]*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
FOLDER = "artifacts/glm4-sample-int4"
VERSE = "only begotten Son"


def find_blocks(language: str) -> dict[str, str]:
    """Heading -> its block of this language."""
    found, heading = {}, ""
    for title, name, body in _BLOCKS:
        if title:
            heading = title
        elif name == language:
            assert heading not in found
            found[heading] = body
    return found


@pytest.fixture
def place(folder: Path, tmp_path: Path) -> Path:
    """A folder in which the page's paths are there."""
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(folder)
    return tmp_path


def run(command: list[str], place: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_page_shows() -> None:
    """A block that is added is run, or said not to be."""
    assert sorted(language for _, language, _ in _BLOCKS if language) == sorted(
        [*["python"] * 3, "python optimum", "cpp", "sh", "js", "csharp", "java"]
    )
    for language in ("C#", "Java"):
        assert re.search(rf"in {re.escape(language)} \(\*\*not run here\*\*\)", PAGE)


@pytest.mark.parametrize("heading", sorted(find_blocks("python")))
def test_python(heading: str, place: Path) -> None:
    if heading == "onnxruntime-genai":
        pytest.importorskip("onnxruntime_genai", reason="needs the extra `peers`")
    code = find_blocks("python")[heading]
    shown = run([sys.executable, "-c", code], place, PYTHONUTF8="1")
    assert len(shown) > 20  # sampled, without a seed
    assert VERSE in shown or heading != "ONNX Runtime alone"  # greedy


def test_cpp(place: Path, built: Path) -> None:
    source = place / "main.cpp"
    source.write_text(find_blocks("cpp")["C and C++"], encoding="utf-8")
    program = place / "main"
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{RUNTIME / 'cpp' / 'include'}"]
    library = [f"-L{built}", "-lglm", f"-Wl,-rpath,{built}"]
    run(["c++", *flags, str(source), "-o", str(program), *library], place)
    assert len(run([str(program)], place)) > 20


def test_program(place: Path, built: Path) -> None:
    (place / "build").symlink_to(built)
    for line in find_blocks("sh")["C and C++"].splitlines():
        assert len(run(shlex.split(line), place)) > 20


def test_node(place: Path) -> None:
    package = npm_packages.install(RUNTIME / "node")
    code = find_blocks("js")["Node"].replace(FOLDER, str(place / FOLDER))
    assert len(run(["node", "--input-type=module", "-e", code], package)) > 20
