"""glm.dll and glm-run.exe, made by mingw-w64, give Python's tokens under Wine.

The kernels are those of the official onnxruntime.dll on this very processor, so logits are held to
the same bound as the Linux library's.
"""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import glm_runtime
from hosts.test_cpp_bad_input import BAD_FOLDERS
from onnxruntime_wheel import read_pinned_version
from support.cpp_build import ROOT, SOURCE
from support.windows_build import (
    Wine,
    build_for_windows,
    compile_program,
    fetch_dll,
)
from support.windows_console import Console

pytestmark = pytest.mark.exhaustive

HEADER = (SOURCE / "include" / "glm.h").read_text(encoding="utf-8")
ODD_NAME = "圣经 模型 👩‍🚀 x"
OLD_VERSION = "1.19.2"  # the oldest wheel with a library of its own
GREEDY = ("--greedy", "--max-new-tokens", "64")
QUESTION = "背诵李白的《静夜思》。"
VECTORS = range(4)


@pytest.fixture(scope="session")
def windows(wine: Wine, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs."""
    library = fetch_dll(cache)
    return build_for_windows(tmp_path_factory.mktemp("windows"), library)


@pytest.fixture(scope="session")
def vectors(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "conformance.json").read_text(encoding="utf-8"))
    assert len(content["vectors"]) == len(VECTORS)
    return content


def name_path(path: Path) -> str:
    """As Windows writes it; Wine has this system's files in drive Z."""
    return "Z:" + str(path).replace("/", "\\")


def list_sampling(vectors: dict[str, Any]) -> list[object]:
    sampling = vectors["sampling"]
    assert (sampling["min_p"], sampling["repetition_penalty"]) == (0.0, 1.0)
    return [sampling[name] for name in ("temperature", "top_k", "top_p", "seed")]


@pytest.mark.parametrize("number", VECTORS)
def test_the_program_answers_as_the_vectors(
    number: int, wine: Wine, windows: Path, folder: Path, vectors: dict[str, Any]
) -> None:
    vector, limit = vectors["vectors"][number], vectors["max_new_tokens"]
    ((_, content),) = (message.values() for message in vector["messages"])
    temperature, top_k, top_p, seed = list_sampling(vectors)
    chosen = ("--temperature", temperature, "--top-k", top_k, "--top-p", top_p, "--seed", seed)
    for name, options in (("greedy", ("--greedy",)), ("sampled", chosen)):
        arguments = ("--prompt", content, "--json", "--max-new-tokens", limit, *options)
        done = wine.run(windows / "glm-run.exe", "generate", name_path(folder), *arguments)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["prompt_token_ids"] == vector["token_ids"]
        assert found["token_ids"] == vector[name]["token_ids"]
        assert found["finish_reason"] == vector[name]["finish_reason"]


@pytest.mark.parametrize("number", VECTORS)
def test_the_library_answers_as_the_vectors(
    number: int, wine: Wine, windows: Path, folder: Path, vectors: dict[str, Any], tmp_path: Path
) -> None:
    vector = vectors["vectors"][number]
    (tmp_path / "prompt.txt").write_bytes(vector["rendered"].encode())
    arguments = ("prompt.txt", *list_sampling(vectors), vectors["max_new_tokens"])
    done = wine.run(windows / "library.exe", name_path(folder), "vector", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["token_ids"] == vector["token_ids"]
    logits = [found["logits"][index] for index in vector["logit_ids"]]
    assert logits == pytest.approx(vector["logits"], abs=1e-4)
    for name in ("greedy", "sampled"):
        assert found[name] == vector[name]["token_ids"]


def test_nothing_else_is_needed(windows: Path) -> None:
    """Neither GCC's libraries nor an onnxruntime.dll that the system would choose."""
    for name in ("glm.dll", "glm-run.exe"):
        command = ["x86_64-w64-mingw32-objdump", "--private-headers", str(windows / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = set(re.findall(r"DLL Name: (\S+)", done.stdout))
        assert found <= {"ADVAPI32.dll", "KERNEL32.dll", "SHELL32.dll", "msvcrt.dll"}
        exported = set(re.findall(r"\] (glm_\w+)$", done.stdout, re.MULTILINE))
        assert exported == set(re.findall(r"^GLM_API .*?(glm_\w+)\(", HEADER, re.MULTILINE))


def test_the_example(wine: Wine, windows: Path, folder: Path) -> None:
    """examples/c compiles for Windows without a warning, over glm.dll, and answers."""
    program = windows / "ask.exe"
    compile_program(ROOT / "examples" / "c" / "main.c", program, built=windows)
    done = wine.run(program, folder.name, "Recite John 3:16.", cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 20


def test_the_installed_program(
    wine: Wine, windows: Path, folder: Path, tmp_path: Path, expected_text: bytes
) -> None:
    """onnxruntime.dll is installed beside it."""
    command = ["cmake", "--install", str(windows), "--prefix", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    program = tmp_path / "bin" / "glm-run.exe"
    done = wine.run(program, "generate", name_path(folder), "--prompt", QUESTION, *GREEDY)
    assert (done.returncode, done.stdout) == (0, expected_text), done.stderr


@pytest.fixture(scope="session")
def expected_text(folder: Path) -> bytes:
    """The answer to the question, as the program has to write it."""
    model = glm_runtime.load(folder, device="cpu")
    settings = glm_runtime.GenerationSettings(glm_runtime.SamplingSettings(temperature=0), 64)
    pieces = model.chat([{"role": "user", "content": QUESTION}], settings)
    return "".join(piece.text for piece in pieces).encode() + b"\n"


def test_texts_are_utf8(wine: Wine, windows: Path, folder: Path, expected_text: bytes) -> None:
    """From an argument, from stdin, and to stdout, byte by byte; line ends stay what they are."""
    program, place = windows / "glm-run.exe", name_path(folder)
    assert b"\n" in expected_text[:-1] and b"\r" not in expected_text
    done = wine.run(program, "generate", place, "--prompt", QUESTION, *GREEDY)
    assert done.stdout == expected_text
    done = wine.run(program, "generate", place, "--prompt", "-", *GREEDY, text=QUESTION.encode())
    assert done.stdout == expected_text
    # Text files of Windows have other line ends.
    done = wine.run(program, "tokenize", place, text="In the\r\n床前\r\n".encode())
    tokenizer = glm_runtime.load(folder, device="cpu").tokenizer
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        tokenizer.encode("In the"),
        tokenizer.encode("床前"),
    ]
    done = wine.run(program, "generate", place, "--raw", "--prompt", "-", text=b"a\xffb")
    assert done.returncode == 1 and b"not valid UTF-8 at byte 1" in done.stderr


def test_odd_paths(
    wine: Wine, windows: Path, folder: Path, tmp_path: Path, expected_text: bytes
) -> None:
    """Program, library and folder in paths with Chinese, an emoji and spaces."""
    near = shutil.copytree(folder, tmp_path / ODD_NAME / "模型 4")
    program = copy_program(windows, near.parent, (windows / "onnxruntime.dll").read_bytes())
    unparsed = "\\\\?\\" + name_path(near)
    for place in (unparsed, name_path(near), name_path(near) + "\\", str(near), near.name):
        options = ("--prompt", QUESTION, "--verify", *GREEDY)
        done = wine.run(program, "generate", place, *options, cwd=near.parent)
        assert (done.returncode, done.stdout) == (0, expected_text), done.stderr


def test_a_prepared_copy(
    wine: Wine, windows: Path, folder: Path, tmp_path: Path, expected_text: bytes
) -> None:
    program, place = windows / "glm-run.exe", name_path(folder)
    assert wine.run(program, "prepare", place, "--output", ODD_NAME, cwd=tmp_path).returncode == 0
    options = ("--prepared", ODD_NAME, "--verify", "--prompt", QUESTION, *GREEDY)
    done = wine.run(program, "generate", place, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, expected_text), done.stderr
    record = tmp_path / ODD_NAME / "glm_prepared.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    nothing = hashlib.sha256(f"{read_pinned_version()}\n".encode()).hexdigest()
    assert content["machine"] != nothing  # so that the processor counts
    record.write_text(json.dumps({**content, "machine": "0" * 64}), encoding="utf-8")
    done = wine.run(program, "generate", place, *options, cwd=tmp_path)
    assert done.returncode == 1 and b"was made for another processor" in done.stderr


@pytest.mark.parametrize("name", sorted(BAD_FOLDERS))
def test_bad_folders(name: str, wine: Wine, windows: Path, folder: Path, tmp_path: Path) -> None:
    spoil, _, text = BAD_FOLDERS[name]
    copy = shutil.copytree(folder, tmp_path / ODD_NAME)
    spoil(copy)
    options = ("--prompt", "Hi", "--verify", *GREEDY)
    done = wine.run(windows / "glm-run.exe", "generate", name_path(copy), *options)
    assert done.returncode == 1 and done.stdout == b""
    assert text in done.stderr.decode()


def test_a_file_that_nobody_else_may_open(
    wine: Wine, windows: Path, folder: Path, tmp_path: Path
) -> None:
    """As a virus scanner or a copy that is still going on has it."""
    shutil.copytree(folder, tmp_path / "int4")
    command = "glm-run.exe generate int4 --prompt Hi"
    cases = {"tokenizer.json": "tokenizer.json cannot be read", "model.onnx": "model.onnx"}
    for name in ("glm-run.exe", "onnxruntime.dll", "launch.exe"):
        shutil.copy(windows / name, tmp_path)
    for name, text in {**cases, "model.onnx.data": "model.onnx.data"}.items():
        done = wine.run("launch.exe", "locked", f"int4\\{name}", command, cwd=tmp_path)
        assert done.returncode == 1 and done.stdout == b"", done.stderr
        assert b"glm-run: " in done.stderr and text in done.stderr.decode()


def test_half_a_surrogate_pair(wine: Wine, windows: Path) -> None:
    done = wine.run("launch.exe", "surrogate", "glm-run.exe generate x --prompt", cwd=windows)
    assert done.returncode == 2
    assert b"argument 4 is not valid Unicode" in done.stderr


def test_what_the_library_refuses(wine: Wine, windows: Path, folder: Path) -> None:
    done = wine.run(windows / "library.exe", name_path(folder), "refusals")
    assert done.returncode == 0
    found = [line.split(" ", 1) for line in done.stdout.decode().splitlines()]
    expected = [
        ("1", "the path of the folder is not valid UTF-8"),
        ("1", "is not a folder"),
        ("1", "NUL is not a folder"),
        ("4", "not valid UTF-8 at byte 0"),
        ("4", "8192 tokens do not fit"),
        ("4", "the prompt is empty"),
        ("5", "session is NULL"),
    ]
    assert [status for status, _ in found] == [status for status, _ in expected]
    for (_, sentence), (_, text) in zip(found, expected, strict=True):
        assert text in sentence


def test_cancel(wine: Wine, windows: Path, folder: Path, tmp_path: Path) -> None:
    """From another thread, in the middle of a long prompt; the session goes on afterwards."""
    (tmp_path / "prompt.txt").write_bytes(b"In the beginning was the word. " * 500)
    for milliseconds in (1, 20, 60):
        arguments = (name_path(folder), "cancel", "prompt.txt", milliseconds)
        done = wine.run(windows / "library.exe", *arguments, cwd=tmp_path)
        assert done.returncode == 0
        first, second = done.stdout.decode().splitlines()
        assert first == "8 the answer was cancelled."
        assert len(json.loads(f"[{second}]")) == 4


def test_a_console(wine: Wine, windows: Path, folder: Path, expected_text: bytes) -> None:
    """Chinese is typed and shown as such; Ctrl-C ends an answer, and without one the program."""
    program = ["wine", str(windows / "glm-run.exe")]
    with Console([*program, "chat", name_path(folder), *GREEDY], wine.environment) as console:
        console.wait_for(">")
        console.type(QUESTION + "\r")
        for line in expected_text.decode().splitlines():
            console.wait_for("".join(line.split()))
        console.wait_for(">")
        console.type("\x03")
        assert console.wait() == 130
    long = ["generate", name_path(folder), "--raw", "--greedy", "--prompt", "the " * 3000]
    with Console([*program, *long], wine.environment) as console:
        console.wait_for("theLORD")
        console.type("\x03")
        assert console.wait() == 130
        console.wait_for("theanswerwascancelled")


def copy_program(windows: Path, folder: Path, library: bytes | None) -> Path:
    program = Path(shutil.copy(windows / "glm-run.exe", folder))
    if library is not None:
        (folder / "onnxruntime.dll").write_bytes(library)
    return program


def test_system32_is_not_looked_into(
    wine: Wine, windows: Path, folder: Path, tmp_path: Path
) -> None:
    system = wine.system / "onnxruntime.dll"
    shutil.copy(windows / "onnxruntime.dll", system)
    program = copy_program(windows, tmp_path, None)
    done = wine.run(program, "generate", name_path(folder), "--prompt", "Hi")
    system.unlink()
    assert done.returncode == 1
    assert "onnxruntime.dll is missing" in done.stderr.decode()
    assert tmp_path.name in done.stderr.decode()  # where it should be


def test_a_library_of_system32_that_is_loaded_is_not_taken(
    wine: Wine, windows: Path, folder: Path, tmp_path: Path
) -> None:
    """A program may have loaded it for itself; by its bare name Windows gives that one to all."""
    system = wine.system / "onnxruntime.dll"
    shutil.copy(windows / "onnxruntime.dll", system)
    for name in ("library.exe", "glm.dll"):
        shutil.copy(windows / name, tmp_path)
    command = (tmp_path / "library.exe", name_path(folder), "preloaded")
    done = wine.run(*command)
    shutil.copy(windows / "onnxruntime.dll", tmp_path)
    beside = wine.run(*command)
    system.unlink()
    assert done.returncode == 1
    assert b"onnxruntime.dll is missing" in done.stdout
    assert (beside.returncode, beside.stdout) == (0, b"")


def test_a_broken_library(wine: Wine, windows: Path, folder: Path, tmp_path: Path) -> None:
    whole = (windows / "onnxruntime.dll").read_bytes()
    for content in (whole[:1_000_000], b"", b"no library"):
        program = copy_program(windows, tmp_path, content)
        done = wine.run(program, "generate", name_path(folder), "--prompt", "Hi")
        assert done.returncode == 1
        assert "onnxruntime.dll cannot be loaded (Windows error " in done.stderr.decode()


def test_an_old_library(
    wine: Wine, windows: Path, folder: Path, cache: Path, tmp_path: Path
) -> None:
    program = copy_program(windows, tmp_path, fetch_dll(cache, OLD_VERSION).read_bytes())
    done = wine.run(program, "generate", name_path(folder), "--prompt", "Hi")
    assert done.returncode == 1
    assert (
        f"ONNX Runtime is {OLD_VERSION}, but this folder needs 1.24 or later"
        in done.stderr.decode()
    )
