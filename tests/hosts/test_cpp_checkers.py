"""The C++ runtime under tools that watch memory, threads and odd input. Minutes in all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.cpp_build import SOURCE, build, find_fuzzing_clang

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "artifacts" / "glm4-sample"

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_valgrind(built: Path, folder: Path) -> None:
    """A whole answer: no bad access, and nothing that is lost for good."""
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    suppressions = SOURCE / "tools" / "valgrind.supp"
    flags = ["--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite"]
    program = [str(built / "glm-run"), "generate", str(folder), "--prompt", "床前 1:1", "--verify"]
    options = ["--stop", "zzz", "--max-thinking-tokens", "3", "--dry-multiplier", "0.8"]
    limits = ["--max-new-tokens", "6", "--threads", "1", "--seed", "1"]
    command = ["valgrind", *flags, f"--suppressions={suppressions}", *program, *options, *limits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "ERROR SUMMARY: 0 errors" in done.stderr


def test_thread_sanitizer(folder: Path, tmp_path: Path) -> None:
    """Sessions of one model in many threads, each cancelled from others."""
    built = build(tmp_path / "tsan", "-DGLM_SANITIZE=thread", target="glm")
    flags = ["-std=c++17", "-g", "-fsanitize=thread", f"-I{SOURCE / 'include'}"]
    links = [f"-L{built}", "-lglm", f"-Wl,-rpath,{built}", f"-Wl,-rpath-link,{built}"]
    source, program = Path(__file__).parent / "cpp_threads.cpp", tmp_path / "threads"
    command = ["c++", *flags, str(source), *links, "-pthread", "-o", str(program)]
    subprocess.run(command, check=True)
    # ONNX Runtime is not built with the sanitizer, which does not see it take its locks.
    suppressions = tmp_path / "suppressions"
    suppressions.write_text("race:libonnxruntime\ncalled_from_lib:libonnxruntime\n")
    options = "report_mutex_bugs=0 halt_on_error=1"
    variables = {**os.environ, "TSAN_OPTIONS": f"suppressions={suppressions} {options}"}
    done = subprocess.run(
        [program, folder], env=variables, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-4000:]
    assert "answers, of which" in done.stdout


def test_fuzzers(tmp_path: Path) -> None:
    """Five seconds each; `make fuzz-cpp` runs them longer."""
    if find_fuzzing_clang() is None:
        pytest.skip("no clang++ with libFuzzer is installed")
    command = [sys.executable, str(SOURCE / "fuzz" / "run.py"), str(SAMPLE), "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Done ") == 5
