"""What `make release` left in dist/: every archive is unpacked, installed and answers a prompt.

The tests of the version, of registries' hosts and of old files need no build.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import build
import glm_export
import glm_quantize
import glm_runtime
from glm_export import ExportOptions, export
from onnxruntime_wheel import LICENSES, fetch_library, read_pinned_version
from support import npm_packages
from support.commands import run_command
from support.processors import CORTEX_A72, make_root
from support.release import DIST, find, make_environment, run, unpack
from support.windows_build import Wine
from version import PLACES, read_version

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "artifacts" / "glm4-sample"
VERSION = read_version(*PLACES[0])
QUESTION = "背诵李白的《静夜思》。"
POEM = "床前明月光"  # what the sample answers
exhaustive = pytest.mark.exhaustive
# Written in parts, so that this file does not name what it looks for.
REGISTRIES = [
    ("deb", "debian", "org"),
    ("snapshot", "debian", "org"),
    ("security", "debian", "org"),
    ("archive", "ubuntu", "com"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("download", "pytorch", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("nuget", "org"),
    ("crates", "io"),
    ("unpkg", "com"),
    ("jsdelivr", "net"),
    ("anaconda", "org"),
]


@pytest.mark.parametrize(("place", "pattern"), PLACES, ids=lambda value: str(value)[:40])
def test_the_version_is_the_same_everywhere(place: str, pattern: str) -> None:
    """`python release/version.py` changes all of them."""
    assert read_version(place, pattern) == VERSION


@pytest.fixture
def change_version(tmp_path: Path) -> Callable[[str], int]:
    """Runs a copy of release/version.py, beside copies of the files that it changes."""
    for name in {"release/version.py", *(place for place, _ in PLACES)}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    program = [sys.executable, tmp_path / "release" / "version.py"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return lambda text: subprocess.call([*program, text], **silent)


def list_changed(folder: Path) -> set[str]:
    """The places that differ from this clone's."""
    names = {place for place, _ in PLACES}
    return {name for name in names if (folder / name).read_bytes() != (ROOT / name).read_bytes()}


def test_only_a_version_is_written(change_version: Callable[[str], int], tmp_path: Path) -> None:
    """`--help` was once written into seven files."""
    for text, code in (("--help", 0), ("--version", 2), ("v1.0.0", 2), ("1.0", 2)):
        assert change_version(text) == code
        assert list_changed(tmp_path) == set()
    assert change_version("98.7.6") == 0
    assert list_changed(tmp_path) == {place for place, _ in PLACES}


def test_a_place_without_a_version_changes_no_file(
    change_version: Callable[[str], int], tmp_path: Path
) -> None:
    last = PLACES[-1][0]
    (tmp_path / last).write_text("{}")
    assert change_version("98.7.6") == 1
    assert list_changed(tmp_path) == {last}


def test_a_build_of_one_part_deletes_its_old_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An older wheel once ended the build; old files of other parts stay, outside of the sums."""
    made = f"glm_export-{VERSION}-py3-none-any.whl"
    for name in ("glm_export-0.0.1-py3-none-any.whl", "glm-run-0.0.1-win-x64.zip"):
        (tmp_path / name).touch()
    python = {"python": lambda output, _scratch, _epoch: (output / made).touch()}
    monkeypatch.setattr(build, "PARTS", python)
    monkeypatch.setattr(sys, "argv", ["build.py", "python", "--output", str(tmp_path)])
    for name in ("SOURCE_DATE_EPOCH", "PIP_CONSTRAINT"):  # main sets them
        monkeypatch.setenv(name, "0")
    build.main()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {made, "glm-run-0.0.1-win-x64.zip", "SHA256SUMS"}
    assert (tmp_path / "SHA256SUMS").read_text().split()[1:] == [made]


def test_an_interrupted_extract_leaves_no_file(tmp_path: Path) -> None:
    """A file that was cut off once passed for the library from then on."""
    folder = tmp_path / "1.0" / "any"
    folder.mkdir(parents=True)
    library = "onnxruntime/capi/libonnxruntime.so"
    wheel = folder / "onnxruntime.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (library, *LICENSES):
            archive.writestr(name, f"all of {name}")
    whole = wheel.read_bytes()
    wheel.write_bytes(whole.replace(b"all of", b"bad of", 1))
    with pytest.raises(zipfile.BadZipFile):
        fetch_library(tmp_path, ["any"], "libonnxruntime", "1.0")
    wheel.write_bytes(whole)
    found = fetch_library(tmp_path, ["any"], "libonnxruntime", "1.0")
    assert found.read_text() == f"all of {library}"
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 4


def test_every_package_and_command_says_the_version() -> None:
    for package in (glm_export, glm_quantize, glm_runtime):
        assert package.__version__ == VERSION
    for name in ("glm-export", "glm-eval", "glm-run"):
        assert run_command(name, "--version") == (0, f"{name}, version {VERSION}\n", "")


def test_no_host_of_a_registry_is_named() -> None:
    """Package managers know their hosts; a host that stands here would go around their settings."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone of the repository")
    hosts = [re.escape(".".join(parts)) for parts in REGISTRIES]
    options = ["-I", "--line-number", "--ignore-case", "--extended-regexp", "|".join(hosts)]
    command = ["git", "grep", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stdout + done.stderr


def ask(*program: object, folder: Path, limit: int = 12) -> str:
    """The sample's answer, greedily."""
    options = ("--prompt", QUESTION, "--greedy", "--max-new-tokens", limit)
    return run(*program, "generate", folder, *options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported sample."""
    return unpack(find("glm4-sample-int4-*.zip"), tmp_path_factory.mktemp("sample"))


@exhaustive
def test_the_sums_are_those_of_every_file() -> None:
    lines = find("SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split("  ")) for line in lines)
    files = {path.name: path for path in DIST.iterdir() if path.name != "SHA256SUMS"}
    assert sums == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
    kinds = ("glm_export-*.whl", "glm_export_optimum-*.whl", "*.tar.gz", "glm-runtime-[0-9]*.tgz")
    more = ("glm-runtime-web-*.tgz", "glm-web-page-*.zip", "glm4-sample-*.zip", "*.cdx.json")
    systems = [f"glm-run-*-{name}.zip" for name in ("linux-x64", "linux-arm64", "win-x64")]
    for pattern in (*kinds, *more, *systems):
        assert VERSION in find(pattern).name


@exhaustive
def test_the_bill_names_what_is_inside() -> None:
    text = find("*.cdx.json").read_text(encoding="utf-8")
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    components = {(one["name"], one["version"]) for one in bill["components"]}
    lock = json.loads((ROOT / "runtime" / "web" / "package-lock.json").read_text("utf-8"))
    web = lock["packages"]["node_modules/onnxruntime-web"]["version"]
    assert {("onnxruntime", read_pinned_version()), ("onnxruntime-web", web)} <= components
    assert {("glm-runtime", VERSION), ("glm-runtime-web", VERSION)} <= components
    names = {name for name, _ in components}
    assert {"numpy", "tokenizers", "onnxruntime-node", "@huggingface/jinja", "marked"} <= names
    assert not {"torch", "typescript", "@types/trusted-types", "esbuild", "pytest"} & names
    assert str(ROOT) not in text


@exhaustive
def test_the_wheels_bring_their_own_files_only() -> None:
    """With a file in `optimum`, transformers would believe that Optimum is installed."""
    with zipfile.ZipFile(find("glm_export-*.whl")) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
        page = {one.name for one in zipfile.Path(wheel, "glm_server/page_files/").iterdir()}
    packages = {
        "glm_agents",
        "glm_export",
        "glm_lm_eval",
        "glm_programs",
        "glm_quantize",
        "glm_runtime",
        "glm_server",
    }
    assert tops == packages | {f"glm_export-{VERSION}.dist-info"}
    assert {"index.html", "page.js", "style.css", "licenses"} <= page
    with zipfile.ZipFile(find("glm_export_optimum-*.whl")) as wheel:
        files = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert files == ["optimum/commands/register/register_glm_export.py"]


@exhaustive
@pytest.mark.parametrize("pattern", ["glm_export-*.whl", "glm_export-*.tar.gz"])
def test_python_alone_answers(pattern: str, folder: Path, tmp_path: Path) -> None:
    """Without torch, and with nothing in the namespace of Optimum."""
    programs = make_environment(tmp_path / "venv", f"{find(pattern)}[onnxruntime]")
    assert run(programs / "glm-run", "--version") == f"glm-run, version {VERSION}\n"
    assert POEM in ask(programs / "glm-run", folder=folder)
    names = ["torch", "onnx", "transformers", "optimum"]
    code = f"from importlib.util import find_spec; print(list(filter(find_spec, {names})))"
    assert run(programs / "python", "-c", code) == "[]\n"
    says = run(programs / "python", "-c", "import glm_runtime; print(glm_runtime.__file__)")
    assert says.startswith(str(tmp_path))


@exhaustive
def test_the_wheel_serves_the_page(folder: Path, tmp_path: Path) -> None:
    programs = make_environment(tmp_path / "venv", f"{find('glm_export-*.whl')}[onnxruntime,serve]")
    command = [programs / "glm-run", "serve", folder, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    for path, beginning in (("/", b"<!doctype html>"), ("/page/licenses/marked.txt", b"#")):
        with urllib.request.urlopen(url + path) as reply:
            assert reply.read().startswith(beginning)
    server.terminate()
    assert server.wait() == 0


@exhaustive
def test_the_source_archive_makes_the_same_wheels(tmp_path: Path) -> None:
    """It holds what building needs, and no tests, which need the sample checkpoint."""
    with tarfile.open(find("glm_export-*.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / f"glm_export-{VERSION}"
    assert not list(source.rglob("test_*.py"))
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path / "made")
    run(*pip, source, source / "export" / "optimum_plugin")
    for pattern in ("glm_export-*.whl", "glm_export_optimum-*.whl"):
        (made,) = (tmp_path / "made").glob(pattern)
        assert read_sums(made) == read_sums(find(pattern))


def read_sums(wheel: Path) -> list[str]:
    """The hash of every file, as the wheel itself lists them."""
    with zipfile.ZipFile(wheel) as archive:
        (record,) = [name for name in archive.namelist() if name.endswith("/RECORD")]
        return sorted(archive.read(record).decode().splitlines())


@exhaustive
def test_the_lines_of_the_dockerfile(folder: Path, tmp_path: Path) -> None:
    """Its npm and pip commands, run on the files that .dockerignore lets in; no image is built."""
    npm_packages.require_node()
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    commands = re.findall(r"^RUN ((?:cd runtime/web|python -m venv) .*)$", text, re.MULTILINE)
    assert len(commands) == 2
    source = tmp_path / "source"
    copy_context(source)
    place = tmp_path / "glm"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for command in commands:
        run("sh", "-c", command.replace("/opt/glm", str(place)), cwd=source, PATH=path)
    program = place / "bin" / "glm-run"
    assert POEM in ask(program, folder=folder)
    check_server(program, folder)
    files = [one for one in place.rglob("*") if one.is_file() and not one.is_symlink()]
    size_mb = sum(one.stat().st_size for one in files if "__pycache__" not in one.parts) / 1e6
    print(f"The image's own layer: {size_mb:.0f} MB")
    assert size_mb < 190  # python:3.11-slim takes the rest of 300


def copy_context(target: Path) -> None:
    """Copy what .dockerignore lets in."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    excluded = {line for line in lines if line[0] not in "#!"} - {"*"}
    ignore = shutil.ignore_patterns(*(line.rpartition("/")[2] for line in excluded))
    for name in (line[1:] for line in lines if line.startswith("!")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=ignore)
        else:
            shutil.copyfile(ROOT / name, target / name)


def check_server(program: Path, folder: Path) -> None:
    """The server answers, and has its page."""
    command = [program, "serve", f"sample={folder}", "--host", "0.0.0.0", "--port", "0"]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(command, env=kept, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip().rpartition(":")[2]
            for path, words in (("/", b"<!doctype html>"), ("/v1/models", b'"sample"')):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as reply:
                    assert words in reply.read()
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    """The sample's model card, with the folder in place."""
    return (folder / "README.md").read_text("utf-8").replace("THIS_FOLDER", str(folder))


@exhaustive
def test_node(folder: Path, card: str, tmp_path: Path) -> None:
    """The package answers, and the card's lines run."""
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    package = find("glm-runtime-[0-9]*.tgz")
    run("npm", "install", "--ignore-scripts", "--no-audit", package, cwd=tmp_path)
    types = tmp_path / "node_modules" / "glm-runtime" / "types"
    assert "load" in (types / "index.d.ts").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```js\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    (tmp_path / "card.js").write_text(code, encoding="utf-8")
    assert run("node", "card.js", cwd=tmp_path).strip()
    greedy = code.replace('"Hello"', f'"{QUESTION}"').replace("}])", "}], { temperature: 0 })")
    (tmp_path / "greedy.js").write_text(greedy, encoding="utf-8")
    assert POEM in run("node", "greedy.js", cwd=tmp_path)


@exhaustive
def test_the_page(folder: Path, tmp_path: Path) -> None:
    """The page gives the vectors of the sample; the npm package holds the same files."""
    web = npm_packages.install(ROOT / "runtime" / "web")
    page = unpack(find("glm-web-page-*.zip"), tmp_path / "page")
    with tarfile.open(find("glm-runtime-web-*.tgz")) as archive:
        archive.extractall(tmp_path / "npm", filter="data")
    built = tmp_path / "npm" / "package" / "dist"
    for path in (one for one in built.rglob("*") if one.is_file()):
        assert (page / path.relative_to(built)).read_bytes() == path.read_bytes()
    for name in ("onnxruntime", *build.PAGE_PACKAGES):
        assert (page / "licenses" / name / "LICENSE").stat().st_size > 700
    exact = tmp_path / "exact"
    plain = {"method": "rtn", "verify": "none", "has_conformance": True}
    export(ExportOptions(SAMPLE, exact, accuracy_level=0, **plain))
    folders = {"GLM_FOLDER": str(folder), "GLM_EXACT_FOLDER": str(exact)}
    npm_packages.run_tests(web, "conformance", {**folders, "GLM_PAGE": str(page)})


def unpack_program(system: str, tmp_path: Path) -> Path:
    """The folder of glm-run for a system, with the licenses of what it holds."""
    content = unpack(find(f"glm-run-*-{system}.zip"), tmp_path / system)
    licenses = content / "share" / "licenses"
    assert "Apache License" in (licenses / "glm" / "LICENSE").read_text("utf-8")
    assert "MIT License" in (licenses / "onnxruntime" / "LICENSE").read_text("utf-8")
    assert (licenses / "onnxruntime" / "ThirdPartyNotices.txt").stat().st_size > 10_000
    assert read_pinned_version() in (content / "README.txt").read_text("utf-8")
    return content


@exhaustive
def test_glm_run_here(folder: Path, card: str, tmp_path: Path) -> None:
    """And the card's C program over its library."""
    content = unpack_program("linux-x64", tmp_path)
    assert run(content / "bin" / "glm-run", "--version") == f"glm-run, version {VERSION}\n"
    assert POEM in ask(content / "bin" / "glm-run", folder=folder)
    (code,) = re.findall(r"^```c\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    (tmp_path / "card.c").write_text(code, encoding="utf-8")
    library = content / "lib"
    options = (f"-I{content / 'include'}", f"-L{library}", "-lglm", f"-Wl,-rpath,{library}")
    run("cc", tmp_path / "card.c", *options, "-o", tmp_path / "card")
    assert run(tmp_path / "card").strip()


@exhaustive
def test_glm_run_on_arm(folder: Path, tmp_path: Path) -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("qemu-aarch64 is not installed")
    content = unpack_program("linux-arm64", tmp_path)
    root = make_root(tmp_path / "root", CORTEX_A72)
    emulated = ("qemu-aarch64", "-L", root, "-cpu", CORTEX_A72.name, content / "bin" / "glm-run")
    assert run(*emulated, "--version") == f"glm-run, version {VERSION}\n"
    assert POEM in ask(*emulated, folder=folder)


@pytest.fixture
def wine(tmp_path: Path) -> Iterator[Wine]:
    wine = Wine(tmp_path / "prefix")
    yield wine
    wine.close()


@exhaustive
def test_glm_run_on_windows(folder: Path, wine: Wine, tmp_path: Path) -> None:
    program = unpack_program("win-x64", tmp_path) / "bin" / "glm-run.exe"
    assert wine.run(program, "--version").stdout.decode().strip() == f"glm-run, version {VERSION}"
    arguments = ("generate", folder, "--prompt", "-", "--greedy", "--max-new-tokens", 12)
    done = wine.run(program, *arguments, text=QUESTION.encode())
    assert POEM in done.stdout.decode(), done.stderr.decode()
