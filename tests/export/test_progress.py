"""What commands show while they work: a bar on a terminal, lines in a log, nothing with --quiet."""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from glm_export import command_line
from glm_export.command_line import show_progress
from support.broken_checkpoints import write_small
from support.commands import run_command

pty = pytest.importorskip("pty", reason="pseudo-terminals of POSIX")

STAGES = ["tracing the decoder", "writing the weights", "verifying", "describing the folder"]


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(command_line, "time", found)
    return found


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
    assert bars and all("#] 100 %" in line and "-" not in line for line in bars)


def test_a_bar_moves_and_ends(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Work that is never reported to its end, as the last layer's norms; then an error."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with suppress(ZeroDivisionError), show_progress(is_quiet=False) as show:
        show("reading", 0, 200)
        clock.now += 10
        show("reading", 50, 200)
        assert capsys.readouterr().err.endswith("[######------------------]  25 %  about 30 s left")
        show("reading", 199, 200)
        assert " 99 %" in capsys.readouterr().err
        show("thinking", 0, 0)
        assert "[########################] 100 %" in capsys.readouterr().err.split("\n")[0]
        show("writing", 0, 10)
        show("writing", 5, 10)
        raise ZeroDivisionError
    err = capsys.readouterr().err
    assert err.endswith("\n")
    assert "50 %" in err.splitlines()[-1] and "100 %" not in err.splitlines()[-1]


def test_what_an_earlier_run_did_is_no_speed(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half was finished before; then a tenth takes 60 s, so four tenths take 4 min."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(is_quiet=False) as show:
        show("reading", 0, 100)
        show("reading", 50, 100)
        clock.now += 60
        show("reading", 60, 100)
        assert capsys.readouterr().err.endswith("about 4 min left")


def test_a_log_has_a_line_a_stage_and_one_each_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was printed for hours; here a minute is 0.1 s, and the work reports nothing more."""
    monkeypatch.setattr(command_line, "_LINE_SECONDS", 0.1)
    monkeypatch.setattr(command_line, "_IGNORED_SECONDS", 0.0)
    lines: list[str] = []
    with show_progress(is_quiet=False) as show:
        show("reading", 0, 100)
        show("reading", 25, 100)
        while len(lines) < 3:
            time.sleep(0.01)
            lines += capsys.readouterr().err.splitlines()
        show("thinking", 0, 0)
    assert lines[0] == "reading"
    assert lines[1].startswith("reading: 25 %, about ") and lines[1].endswith(" left")
    assert lines[2].startswith("reading: 25 %, about ")
    assert "thinking" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_an_export_off_a_terminal(tmp_path: Path, options: list[str]) -> None:
    checkpoint = write_small(tmp_path / "checkpoint")
    arguments = (checkpoint, "-o", tmp_path / "out", "--method", "rtn", *options)
    code, out, err = run_command("glm-export", *arguments)
    assert (code, out) == (0, f"{tmp_path / 'out'}\n")
    shown = [line for line in err.splitlines() if line in STAGES]
    assert shown == ([] if options else STAGES)
    assert "glm-run chat" in err  # the summary stays
