"""What is wrong gives an error value in the C++ runtime, and never a crash."""

import ctypes
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import glm_runtime
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.folder.manifest import describe_file
from glm_runtime.sampling.settings import DrySettings
from support import cpp_library as cpp
from support.cpp_build import build, run_program
from support.cpp_folders import change_manifest
from support.cpp_library import GREEDY, GlmError, Library, Settings
from support.cpp_lines import make_lines


def test_cancel(session: cpp.Session, model: cpp.Model) -> None:
    """From another thread, in the middle of a long prompt; the session goes on afterwards."""
    prompt = model.tokenize(b"[gMASK]<sop>" + b"In the beginning was the word. " * 400)[:4000]
    start = time.perf_counter()
    session.logits(prompt, 4224)
    whole = time.perf_counter() - start
    other = model.new_session()
    timer = threading.Timer(whole / 4, other.cancel)
    timer.start()
    start = time.perf_counter()
    check_refusal(lambda: other.generate(prompt, GREEDY), cpp.CANCELLED, "cancelled")
    assert time.perf_counter() - start < 0.9 * whole
    expected = [piece.token for piece in session.generate(prompt, GREEDY)]
    assert [piece.token for piece in other.generate(prompt, GREEDY)] == expected
    other.cancel()  # nothing is running
    assert [piece.token for piece in other.generate(prompt, GREEDY)] == expected
    other.close()


def test_a_callback_ends_the_answer(session: cpp.Session, model: cpp.Model) -> None:
    prompt, pieces = model.tokenize(b"In the"), []

    def stop_at_three(piece: cpp.Piece) -> bool:
        pieces.append(piece)
        return len(pieces) == 3

    check_refusal(
        lambda: session.generate(prompt, GREEDY, stop_at_three), cpp.CANCELLED, "by the callback"
    )
    assert [p.token for p in session.generate(prompt, GREEDY)][:3] == [p.token for p in pieces]


def check_refusal(call: Callable[[], object], status: int, text: str) -> None:
    with pytest.raises(GlmError) as caught:
        call()
    assert caught.value.status == status, caught.value
    assert text in str(caught.value)


def test_bad_prompts(session: cpp.Session, model: cpp.Model) -> None:
    check_refusal(lambda: session.generate([], GREEDY), cpp.BAD_PROMPT, "the prompt is empty")
    check_refusal(lambda: session.generate([1] * 4097), cpp.BAD_PROMPT, "4097 tokens do not fit")
    check_refusal(lambda: session.generate([4190]), cpp.BAD_PROMPT, "contains the id 4190")
    check_refusal(lambda: session.generate([-1]), cpp.BAD_PROMPT, "contains the id -1")
    for broken in (b"\xff", b"ok \xe4\xb8", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        check_refusal(lambda b=broken: model.tokenize(b), cpp.BAD_PROMPT, "not valid UTF-8")
        check_refusal(
            lambda b=broken: model.render([("user", b)]), cpp.BAD_PROMPT, "not valid UTF-8"
        )
    check_refusal(lambda: model.render([]), cpp.BAD_PROMPT, "conversation is empty")
    check_refusal(lambda: model.render([("poet", b"x")]), cpp.BAD_PROMPT, "role 'poet'")


BAD_SETTINGS = (
    ("stop_count", 1001),
    *(("temperature", -1), ("temperature", float("nan")), ("top_k", -1), ("top_p", 0)),
    *(("top_p", 2), ("min_p", 2), ("repetition_penalty", 0), ("presence_penalty", float("inf"))),
    *(("repetition_penalty", 5e-324), ("temperature", 1e308), ("presence_penalty", -1e308)),
    *(("frequency_penalty", float("nan")), ("max_new_tokens", -1), ("max_thinking_tokens", -1)),
    *(("dry_multiplier", -1), ("dry_multiplier", 1e308), ("limits_thinking", 1)),
)


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
def test_bad_settings(name: str, value: float, session: cpp.Session) -> None:
    settings = Settings.of(GenerationSettings(max_new_tokens=8))
    setattr(settings, name, value)
    check_refusal(lambda: session.generate([1], settings), cpp.BAD_SETTING, f"{name} is ")


GREEDY_WITHOUT_END = GenerationSettings(SamplingSettings(temperature=0))


@pytest.mark.parametrize(
    ("name", "value"), [("dry_base", 0.5), ("dry_base", 1e308), ("dry_allowed_length", 0)]
)
def test_bad_dry(name: str, value: float, session: cpp.Session) -> None:
    sampling = SamplingSettings(dry=DrySettings())
    settings = Settings.of(GenerationSettings(sampling, 8))
    setattr(settings, name, value)
    check_refusal(lambda: session.generate([1], settings), cpp.BAD_SETTING, f"{name} is ")


def test_bad_threads(library: Library, folder: Path) -> None:
    for threads in (-1, 1025, 2**31 - 1):
        refusal = f"threads is {threads}"
        check_refusal(lambda t=threads: library.load(folder, t), cpp.BAD_SETTING, refusal)


def test_huge_counts(library: Library, session: cpp.Session, model: cpp.Model) -> None:
    """Nothing is copied before the count is known to be possible, and NULL is no prompt."""
    one, call = ctypes.c_int32(1), library.c.glm_generate
    for count in (2**31, 2**62, 2**64 - 1):
        size = ctypes.c_size_t(count)
        status = call(session.handle, ctypes.byref(one), size, None, None, None)
        assert status == cpp.BAD_PROMPT
        assert f"{count} tokens do not fit" in library.c.glm_error_text().decode()
    assert call(session.handle, None, ctypes.c_size_t(1), None, None, None) == cpp.BAD_SETTING
    assert call(None, ctypes.byref(one), ctypes.c_size_t(1), None, None, None) == cpp.BAD_SETTING
    length = ctypes.c_size_t()
    tokenize = library.c.glm_tokenize
    assert tokenize(model.handle, None, ctypes.c_size_t(3), None, 0, None) == cpp.BAD_SETTING
    status = tokenize(model.handle, b"abc", ctypes.c_size_t(3), None, ctypes.c_size_t(9), None)
    assert status == cpp.BAD_SETTING
    assert library.c.glm_load(None, None, ctypes.byref(length)) == cpp.BAD_SETTING
    library.c.glm_cancel(None)
    library.c.glm_free(None)
    library.c.glm_free_session(None)


def test_outputs_are_checked_first(library: Library, session: cpp.Session) -> None:
    """Before a prompt is read, which may take minutes: so the wrong id is not what is told."""
    prompt, one, size = ctypes.c_int32(-1), ctypes.c_size_t(1), ctypes.c_size_t()
    call = library.c.glm_logits
    outputs = ((None, one, ctypes.byref(size)), (None, ctypes.c_size_t(0), None))
    for output in outputs:
        assert call(session.handle, ctypes.byref(prompt), one, *output) == cpp.BAD_SETTING


def test_a_busy_session_refuses_a_second_thread(session: cpp.Session, model: cpp.Model) -> None:
    """Answers and logits both; the first thread's answer is what it is without the second."""
    prompt = model.tokenize(b"In the")
    expected, refusals = session.generate(prompt, GREEDY), []

    def ask(call: Callable[[], object]) -> None:
        try:
            call()
        except GlmError as error:
            refusals.append(error)

    def disturb(piece: cpp.Piece) -> None:
        for call in (lambda: session.generate([5], GREEDY), lambda: session.logits([5], 4224)):
            thread = threading.Thread(target=ask, args=(call,))
            thread.start()
            thread.join()

    pieces = session.generate(prompt, GREEDY, disturb)
    assert pieces == expected
    assert [error.status for error in refusals] == [cpp.BAD_SETTING] * 2 * len(pieces)
    assert all("used by another thread" in str(error) for error in refusals)


def test_error_texts_are_utf8(library: Library, model: cpp.Model) -> None:
    """Though a role is not, and though a character is cut where the text becomes too long."""
    for role in (b"\xff\xfe", b"\xe4\xb8\xad" * 500):
        message = (cpp.Message * 1)(cpp.Message(role, b"x"))
        length, one = ctypes.c_size_t(), ctypes.c_size_t(1)
        call = library.c.glm_render_chat
        status = call(model.handle, message, one, -1, None, ctypes.c_size_t(0), length)
        assert status == cpp.BAD_PROMPT
        library.c.glm_error_text().decode("utf-8")


def test_the_context_is_filled_to_its_end(session: cpp.Session) -> None:
    pieces = session.generate([5] * 4095, Settings.of(GREEDY_WITHOUT_END))
    assert len(pieces) <= 2
    assert pieces[-1].finish in ("length", "stop")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change_text(path: Path, before: str, after: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert before in content
    path.write_text(content.replace(before, after, 1), encoding="utf-8")


def change_table(folder: Path, **changes: object) -> None:
    path = folder / "chat_table.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    entry = vars(describe_file(path))
    change_manifest(folder, lambda m: m["files"].update({path.name: entry}))


def add_token(folder: Path, token_id: int) -> None:
    """A mark that the thinking is closed by, where there is no logit for it."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    token = {**content["added_tokens"][0], "id": token_id, "content": "</think>"}
    content["added_tokens"].append(token)
    path.write_text(json.dumps(content), encoding="utf-8")
    entry = vars(describe_file(path))
    change_manifest(folder, lambda m: m["files"].update({path.name: entry}))


BAD_FOLDERS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no folder": (shutil.rmtree, cpp.BAD_FOLDER, "is not a folder"),
    "no manifest": (
        lambda f: (f / "glm_manifest.json").unlink(),
        cpp.BAD_FOLDER,
        "has no glm_manifest.json",
    ),
    "no weights": (
        lambda f: (f / "model.onnx.data").unlink(),
        cpp.BAD_FOLDER,
        "model.onnx.data is missing",
    ),
    "short weights": (
        lambda f: truncate(f / "model.onnx.data"),
        cpp.BAD_FOLDER,
        "bytes, the manifest says",
    ),
    "short manifest": (
        lambda f: truncate(f / "glm_manifest.json"),
        cpp.BAD_FOLDER,
        "glm_manifest.json is invalid at byte",
    ),
    "changed weights": (
        lambda f: flip_a_bit(f / "model.onnx.data"),
        cpp.BAD_FOLDER,
        "its SHA-256 differs from the manifest",
    ),
    "changed manifest": (
        lambda f: change_text(f / "glm_manifest.json", "parameters", "Parameters"),
        cpp.BAD_FOLDER,
        "its text or checksum is not what glm-export wrote",
    ),
    "another tool": (
        lambda f: change_manifest(f, lambda m: m.update(format="other")),
        cpp.BAD_FOLDER,
        "format is 'other'",
    ),
    "newer": (
        lambda f: change_manifest(f, lambda m: m.update(format_version=99)),
        cpp.NEWER_FORMAT,
        "format_version 99",
    ),
    "for a newer ONNX Runtime": (
        lambda f: change_manifest(f, lambda m: m.update(oldest_onnxruntime="9.1")),
        cpp.UNSUPPORTED,
        "but this folder needs 9.1 or later",
    ),
    "a way out": (
        lambda f: change_manifest(f, lambda m: m["files"].update({"../x": {}})),
        cpp.BAD_FOLDER,
        "a file name without a folder",
    ),
    "other heads": (
        lambda f: change_manifest(f, lambda m: m["model"].update(num_kv_heads=3)),
        cpp.BAD_FOLDER,
        "another type or shape",
    ),
    "no heads": (
        lambda f: change_manifest(f, lambda m: m["model"].update(head_dim=0)),
        cpp.BAD_FOLDER,
        "head_dim is 0",
    ),
    "more layers": (
        lambda f: change_manifest(f, lambda m: m["model"].update(num_layers=5)),
        cpp.BAD_FOLDER,
        "is missing, but the manifest requires it",
    ),
    "too many layers to name": (
        lambda f: change_manifest(f, lambda m: m["model"].update(num_layers=2**31 - 1)),
        cpp.BAD_FOLDER,
        "num_layers = 2147483647",
    ),
    "a token without a logit": (
        lambda f: add_token(f, 1_000_000),
        cpp.BAD_FOLDER,
        "tokenizer.json has ids up to 1000000 where ids below",
    ),
    "no such table": (
        lambda f: change_table(f, format_version=0),
        cpp.BAD_FOLDER,
        "format_version is 0",
    ),
    "half a table": (
        lambda f: change_table(f, generation_prompt={"default": "x"}),
        cpp.BAD_FOLDER,
        "generation_prompt needs default",
    ),
    "a newer table": (
        lambda f: change_table(f, format_version=3),
        cpp.NEWER_FORMAT,
        "format_version 3",
    ),
}


@pytest.mark.parametrize("name", sorted(BAD_FOLDERS))
def test_bad_folders(name: str, folder: Path, library: Library, tmp_path: Path) -> None:
    spoil, status, text = BAD_FOLDERS[name]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    spoil(copy)
    check_refusal(lambda: library.load(copy, is_verified=True), status, text)


def test_links(folder: Path, library: Library, tmp_path: Path) -> None:
    """To a file of the folder, and to the folder itself, but to nothing outside."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "tokenizer.json").rename(copy / "other")
    (copy / "tokenizer.json").symlink_to("other")
    (tmp_path / "link").symlink_to(copy)
    library.load(tmp_path / "link").close()
    (copy / "other").rename(tmp_path / "other")
    for target in ("../other", "nowhere"):
        (copy / "tokenizer.json").unlink()
        (copy / "tokenizer.json").symlink_to(target)
        text = "is a link to a file outside of the folder" if target == "../other" else "is missing"
        check_refusal(lambda: library.load(copy), cpp.BAD_FOLDER, f"tokenizer.json {text}")


def test_logits_that_are_no_numbers(folder: Path, library: Library, tmp_path: Path) -> None:
    """Weights of the right size, every scale of which is NaN: an error value, time and again."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    data = copy / "model.onnx.data"
    data.write_bytes(b"\xff" * data.stat().st_size)
    model = library.load(copy)
    session = model.new_session()
    for sampling in (SamplingSettings(temperature=0), SamplingSettings(top_k=5)):
        settings = Settings.of(GenerationSettings(sampling, 4))
        refusal = "no finite maximum"
        check_refusal(lambda s=settings: session.generate([5], s), cpp.RUN_FAILED, refusal)
    session.close()
    model.close()


def test_whole_folder_is_verified(library: Library, folder: Path) -> None:
    library.load(folder, is_verified=True).close()


def test_too_little_memory(built: Path, folder: Path) -> None:
    """An error value at any limit, from where nothing starts to where all fits."""
    program, codes = built / "glm-run", set()
    for limit_mb in range(40, 600, 40):
        shell = (
            f"ulimit -v {limit_mb * 1024}; "
            f"exec '{program}' generate '{folder}' --prompt Hi --greedy --max-new-tokens 4"
        )
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
        codes.add(done.returncode)
        assert done.returncode in (0, 1, 127), (limit_mb, done.returncode, done.stderr)
        assert done.returncode == 0 or done.stderr
    assert 0 in codes


@pytest.mark.slow
@pytest.mark.exhaustive
def test_address_sanitizer(folder: Path, tmp_path: Path, python_model: glm_runtime.Model) -> None:
    """The program, built with AddressSanitizer and UndefinedBehaviorSanitizer, on good and bad."""
    options = ("-DGLM_SANITIZE=address,undefined", "-DCMAKE_CXX_FLAGS_RELEASE=-O1")
    built = build(tmp_path / "asan", *options, target="glm-run")
    good = ("--prompt", "Recite John 3:16.", "--max-new-tokens", 24)
    assert run_program(built, "generate", folder, *good, "--verify").returncode == 0
    lines = "\n".join(line.replace("\n", " ") for line in make_lines(2000))
    done = run_program(built, "tokenize", folder, input=lines)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (spoil, _, _) in BAD_FOLDERS.items():
        copy = tmp_path / name
        shutil.copytree(folder, copy)
        spoil(copy)
        done = run_program(built, "generate", copy, *good, "--verify")
        assert done.returncode == 1, (name, done.stderr[-3000:])
        assert done.stderr.startswith("glm-run: "), done.stderr
