"""Shell completion as docs/cli.md describes it, in a real bash."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import ENTRY_POINTS

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three programs, as pip installs them."""
    folder = tmp_path_factory.mktemp("bin")
    for name, entry in ENTRY_POINTS.items():
        code = f"#!{sys.executable}\nfrom glm_programs import {entry} as main\nmain()\n"
        (folder / name).write_text(code)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("glm-run", "gen"), ["generate"]),
        (("glm-run", "chat", "DIR", "--over"), ["--overflow"]),
        (("glm-run", "chat", "DIR", "--overflow", ""), ["error", "slide"]),
        (("glm-export", "CHECKPOINT", "--quant", "int"), ["int8", "int4", "int2"]),
        (("glm-eval", "CHECKPOINT", "DIR", "--pl"), ["--plot"]),
    ],
)
def test_bash_completes_what_the_page_says(
    programs: Path, words: tuple[str, ...], expected: list[str]
) -> None:
    block = re.search(r"## Shell completion\n.*?```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line.endswith(f' {words[0]})"')]
    assert len(lines) == 1
    script = (
        f"{lines[0]}\n"
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        f"$(complete -p {words[0]} | grep -o '_[a-z_]*_completion') {words[0]}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_a_script(programs: Path, shell: str) -> None:
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "_GLM_RUN_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [programs / "glm-run"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{shell}_complete" in done.stdout and "glm-run" in done.stdout, done.stderr
    assert f"{shell}_source" in PAGE.read_text()
