"""What commands show while they work: a bar on a terminal, lines in a log, nothing with --quiet."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from glm_export import ExportOptions, export
from support.broken_checkpoints import write_small
from support.commands import run_command

pty = pytest.importorskip("pty", reason="pseudo-terminals of POSIX")

STAGES = ["tracing the decoder", "writing the weights", "verifying", "describing the folder"]


def read_terminal(code: str, *arguments: object) -> str:
    """What Python writes on a terminal of 80 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "80"},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            part = b""
        if not part:
            break
        written += part
    os.close(leader)
    assert process.wait() == 0, written
    return written.decode()


def lines_on_screen(written: str) -> list[str]:
    """The lines as a reader sees them in the end: what follows a carriage return overwrites."""
    lines = []
    for line in written.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_every_stage_of_an_export_is_one_line_on_a_terminal(tmp_path: Path) -> None:
    """The label stood there twice, and two bars stopped at 99 %."""
    checkpoint = write_small(tmp_path / "checkpoint")
    code = "from glm_export.cli import main; main()"
    written = read_terminal(code, checkpoint, "-o", tmp_path / "out", "--method", "rtn")
    lines = lines_on_screen(written)
    drawn = [part for part in re.split("[\r\n]", written) if part.startswith(tuple(STAGES))]
    assert drawn and max(map(len, drawn)) < 80
    names = [line[:26].rstrip() for line in lines[: len(STAGES)]]
    assert names == STAGES
    bars = [line for line in lines if "[" in line]
    assert bars and all("#] 100%" in line and "-" not in line for line in bars)


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_an_export_off_a_terminal(tmp_path: Path, options: list[str]) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    arguments = (checkpoint, "-o", tmp_path / "out", "--method", "rtn", *options)
    code, out, err = run_command("glm-export", *arguments)
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    shown = [line for line in err.splitlines() if line in STAGES]
    assert shown == ([] if options else STAGES)
    assert ("glm-run chat" in err) == (not options)


def test_counted_stages_end_at_their_total_for_callers_of_the_api(tmp_path: Path) -> None:
    """Norms have no codes, so calibration stopped below the number of weights."""
    last: dict[str, tuple[int, int]] = {}

    def note(stage: str, done: int, total: int) -> None:
        last[stage] = (done, total)

    checkpoint = write_small(tmp_path / "checkpoint")
    export(ExportOptions(checkpoint, tmp_path / "out", calibration_tokens=64), note)
    for stage in ("measuring sensitivity", "calibrating", "writing the weights"):
        done, total = last[stage]
        assert done == total > 0, stage
