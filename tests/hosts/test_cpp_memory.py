"""Memory of the C++ runtime: one copy of the weights, and none of its own of a prepared folder."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

from glm_export import ExportOptions, export
from support import cpp_library as cpp
from support.cpp_build import run_program
from support.cpp_library import GREEDY, Library
from support.huge_pages import measure_huge_bytes, require_huge_pages, wait_for_huge_pages
from support.tiny_models import TinyShape, build_model, write_checkpoint

SMALL = replace(TinyShape(), vocab_size=8000, max_position_embeddings=4096)
LARGE = replace(
    SMALL,
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=8,
    num_attention_heads=16,
    head_dim=64,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two folders in int4, one of 0.5 MB of weights, one of some tens."""
    parent = tmp_path_factory.mktemp("memory")
    for name, shape in (("small", SMALL), ("large", LARGE)):
        checkpoint = write_checkpoint(parent / f"{name}-ck", build_model(shape), torch.bfloat16)
        export(ExportOptions(checkpoint, parent / name, method="rtn", verify="none"))
    return {name: parent / name for name in ("small", "large")}


def measure_kilobytes(built: Path, folder: Path, *options: object) -> dict[str, int]:
    """Of a program that has loaded the folder and waits for a line."""
    command = [str(built / "glm-run"), "tokenize", str(folder), *map(str, options)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("a\n" * 4000)  # more than the output is held back
        process.stdin.flush()
        assert process.stdout.readline().startswith("[")
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        process.stdin.close()
        process.stdout.read()
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


def test_one_copy_of_the_weights(
    built: Path, folders: dict[str, Path], tmp_path: Path, library: Library
) -> None:
    """What grows with the weights: packed for the kernels they are somewhat larger than their file,
    and there is no other copy. Of a prepared folder there is none,
    but some megabytes that a wider model needs for other things.
    """
    sizes = {n: (f / "model.onnx.data").stat().st_size // 1024 for n, f in folders.items()}
    difference = sizes["large"] - sizes["small"]
    assert difference > 60_000
    found = {name: measure_kilobytes(built, folder) for name, folder in folders.items()}
    grown = {name: found["large"][name] - found["small"][name] for name in ("Rss", "Anonymous")}
    assert grown["Rss"] < 1.5 * difference
    assert grown["Anonymous"] < 1.5 * difference
    for name, folder in folders.items():
        assert run_program(built, "prepare", folder, "--output", tmp_path / name).returncode == 0
        found[name] = measure_kilobytes(built, folder, "--prepared", tmp_path / name)
    assert found["large"]["Anonymous"] - found["small"]["Anonymous"] < 0.2 * difference
    compare(library, folders["large"], tmp_path / "large")


def test_huge_pages(built: Path, folders: dict[str, Path]) -> None:
    """What the kernel can put on huge pages is on them, after loading."""
    plain = measure_kilobytes(built, folders["large"])["AnonHugePages"]
    moved = measure_kilobytes(built, folders["large"], "--huge-pages")["AnonHugePages"]
    require_huge_pages()
    assert moved > plain
    assert moved > 40_000


def test_a_chat_moves_to_huge_pages_after_its_first_answer(
    built: Path, folders: dict[str, Path]
) -> None:
    command = [built / "glm-run", "chat", folders["large"], "--max-new-tokens", "2"]
    require_huge_pages()
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=nothing, stderr=pipe) as process:
        assert process.stdin is not None and process.stderr is not None
        assert process.stderr.read(2) == b"> "
        assert measure_huge_bytes(process.pid) < 40 << 20
        process.stdin.write(b"Hi\n")
        process.stdin.flush()
        assert process.stderr.read(2) == b"> "
        wait_for_huge_pages(process.pid, 40 << 20)
        process.stdin.close()
        assert process.wait() == 0


def compare(library: Library, folder: Path, prepared: Path) -> None:
    """The same logits and tokens, to the last bit."""
    prompt = [65 + place * 7 % 190 for place in range(150)]
    answers = []
    for copy in (None, prepared):
        model = library.load(folder, prepared=copy, is_verified=True)
        session = model.new_session()
        tokens = [piece.token for piece in session.generate(prompt, GREEDY)]
        answers.append((tokens, session.logits(prompt, 8000)))
        session.close()
        model.close()
    assert answers[0] == answers[1]


def change_record(**changes: object) -> Callable[[Path], object]:
    def change(copy: Path) -> None:
        path = copy / "glm_prepared.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def flip_a_bit(copy: Path) -> None:
    content = bytearray((copy / "model.onnx.data").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx.data").write_bytes(content)


def describe_processor() -> str:
    """The lines of the first processor that kernels are chosen by."""
    kept = ("model name", "flags", "Features", "CPU part", "CPU variant")
    first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line for line in first.splitlines() if line.split(":")[0].rstrip("\t") in kept]
    return "".join(line + "\n" for line in lines)


def test_what_a_copy_is_made_for(built: Path, folder: Path, tmp_path: Path) -> None:
    """The record holds the hash of version and processor, so that any other one is refused."""
    assert run_program(built, "prepare", folder, "--output", tmp_path / "copy").returncode == 0
    record = json.loads((tmp_path / "copy" / "glm_prepared.json").read_text())
    processor = describe_processor()
    assert "flags" in processor or "Features" in processor
    text = f"{onnxruntime.__version__}\n{processor}"
    assert record["machine"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_damaged_folder_is_not_prepared(built: Path, folder: Path, tmp_path: Path) -> None:
    """Its copy would be vouched for by the hashes of the whole one."""
    damaged, output = shutil.copytree(folder, tmp_path / "damaged"), tmp_path / "copy"
    flip_a_bit(damaged)
    done = run_program(built, "prepare", damaged, "--output", output)
    assert done.returncode == 1 and not output.exists()
    assert "model.onnx.data was changed: its SHA-256 differs from the manifest" in done.stderr


def test_a_full_disk(built: Path, folder: Path, library: Library, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the copy is named, not the folder blamed."""
    output = tmp_path / "copy"
    shell = f"trap '' XFSZ; ulimit -f 100; exec '{built}/glm-run' prepare '{folder}' --output"
    command = ["bash", "-c", f"{shell} '{output}'"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not output.exists()
    assert "check the free disk space" in done.stderr


def test_a_processor_without_a_name(built: Path, folder: Path, tmp_path: Path) -> None:
    """All of them would seem the same, so no copy is made, and none is taken."""
    hide = ["unshare", "--mount", "bash", "-c", 'mount --bind /dev/null /proc/cpuinfo && "$@"', "x"]
    if subprocess.run([*hide, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("/proc/cpuinfo cannot be hidden here")
    program, copy = str(built / "glm-run"), tmp_path / "copy"
    assert run_program(built, "prepare", folder, "--output", copy).returncode == 0
    make = ("prepare", str(folder), "--output", str(tmp_path / "other"))
    take = ("generate", str(folder), "--prompt", "Hi", "--prepared", str(copy))
    for arguments in (make, take):
        command = [*hide, program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "the system does not say which processor this is" in done.stderr
    assert not (tmp_path / "other").exists()


BAD_COPIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (shutil.rmtree, "is not a folder"),
    "no record": (lambda copy: (copy / "glm_prepared.json").unlink(), "has no glm_prepared.json"),
    "no graph": (lambda copy: (copy / "model.onnx").unlink(), "model.onnx is missing"),
    "cut off": (lambda copy: (copy / "model.onnx.data").write_bytes(b"x"), "has 1 bytes"),
    "changed": (flip_a_bit, "its SHA-256 differs from the manifest"),
    "of another": (change_record(folder="0" * 64), "was made from another folder"),
    "elsewhere": (change_record(machine="0" * 64), "was made for another processor"),
    "of nothing": (change_record(files={}), "does not list model.onnx"),
    "a way out": (change_record(files={"model.onnx": {}, "../x": {}}), "../x is missing"),
    "no JSON": (lambda copy: (copy / "glm_prepared.json").write_text("{"), "is invalid at"),
}


def test_bad_copies(built: Path, folder: Path, library: Library, tmp_path: Path) -> None:
    """None is opened; a copy is made in a new folder only."""
    whole = tmp_path / "whole"
    assert run_program(built, "prepare", folder, "--output", whole).returncode == 0
    for output in (whole, tmp_path / "no" / "where"):
        done = run_program(built, "prepare", folder, "--output", output)
        assert (done.returncode, done.stdout) == (1, "")
        assert "cannot be created" in done.stderr
    for name, (spoil, text) in BAD_COPIES.items():
        copy = tmp_path / name
        shutil.copytree(whole, copy)
        spoil(copy)
        with pytest.raises(cpp.GlmError, match=text) as caught:
            library.load(folder, prepared=copy, is_verified=True)
        assert caught.value.status == cpp.BAD_FOLDER
