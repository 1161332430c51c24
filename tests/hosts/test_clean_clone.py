"""Every command and program of the Node and web pages, in a clean clone with nothing installed."""

import platform
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import npm_packages

ROOT = Path(__file__).parents[2]
FOLDER = "artifacts/glm4-sample-int4"
PROJECT = "my-project"
_BLOCK = re.compile(r"^```(\w+)([ \w-]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What each program of a page prints, in their order.
PRINTED = {
    "runtime/node/README.md": ["only begotten Son"],
    "docs/node.md": ["In the beginning God .*床前明月光", "床前明月光", "床前明月光"],
}


@pytest.fixture
def clone(folder: Path, tmp_path: Path) -> Path:
    """The files that git knows, and the exported sample, which `make demo` makes."""
    npm_packages.require_node()
    npm_packages.require_registry()
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone of the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    clone = tmp_path / "clone"
    for name in filter(None, listed.stdout.decode().split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():  # or it was deleted since the last commit
            shutil.copyfile(ROOT / name, clone / name)
    shutil.copytree(folder, clone / FOLDER)
    return clone


def run_page(clone: Path, page: str, typed: str = "") -> str:
    """Run the blocks of a page in their order; returns what its commands printed."""
    printed = ""
    expected = iter(PRINTED.get(page, []))
    for language, _, code in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "sh" and is_run_here(code):
            command = ["bash", "-euo", "pipefail", "-c", code]
            done = npm_packages.run(command, clone, typed=typed)
            assert done.returncode == 0, code + done.stderr
            printed += done.stdout
        elif language == "js":
            (clone / PROJECT / "block.mjs").write_text(code, encoding="utf-8")
            done = npm_packages.run(["node", "block.mjs"], clone / PROJECT)
            assert done.returncode == 0, code + done.stderr
            assert re.search(next(expected), done.stdout, re.DOTALL), done.stdout
    assert next(expected, None) is None, "a program is missing"
    return printed


def is_run_here(code: str) -> bool:
    """Deleting the libraries of all systems but one is for that one."""
    is_linux_x64 = sys.platform == "linux" and platform.machine() == "x86_64"
    return is_linux_x64 or "linux/arm64" not in code


@pytest.mark.exhaustive
@pytest.mark.slow
def test_node(clone: Path) -> None:
    run_page(clone, "runtime/node/README.md")
    modules = clone / PROJECT / "node_modules"
    assert (modules / "glm-runtime" / "types" / "index.d.ts").is_file()
    libraries = modules / "onnxruntime-node" / "bin"
    assert not list(libraries.rglob("*cuda*")), "a script of onnxruntime-node ran"
    run_page(clone, "docs/node.md")


@pytest.mark.slow
def test_example(clone: Path) -> None:
    """An answer's words may differ: the folder's settings sample."""
    typed = "Recite Genesis 1:1.\n背诵李白的《静夜思》。\n\nnever asked\n"
    assert run_page(clone, "examples/node/README.md", typed).count(" tokens/s)") == 2


@pytest.fixture
def address(clone: Path) -> Iterator[str]:
    """Run the commands of the web README; then serve the page by its command, on a free port."""
    page = (ROOT / "runtime" / "web" / "README.md").read_text(encoding="utf-8")
    blocks = {
        kind.strip(): code for language, kind, code in _BLOCK.findall(page) if language == "sh"
    }
    assert blocks.keys() == {"", "server"}
    done = npm_packages.run(["bash", "-euo", "pipefail", "-c", blocks[""]], clone)
    assert done.returncode == 0, done.stderr
    words = blocks["server"].split()
    command = [sys.executable, "-u", *words[1:], "--bind", "127.0.0.1", "0"]
    server = subprocess.Popen(command, cwd=clone, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield f"http://127.0.0.1:{re.findall('port ([0-9]+)', server.stdout.readline())[0]}"
    server.kill()
    server.wait()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_web(address: str, clone: Path) -> None:
    for name in ("index.html", "glm.js", "worker.js", "model/glm_manifest.json"):
        with urllib.request.urlopen(f"{address}/{name}") as answer:
            assert answer.status == 200
    packed = npm_packages.run(["npm", "pack", "--json", "./runtime/web"], clone)
    assert packed.returncode == 0, packed.stderr
    assert '"dist/onnxruntime/ort.wasm.min.mjs"' in packed.stdout
