"""Progress: a bar that ends at 100 % on a terminal, lines for a log elsewhere, nothing if quiet."""

import contextlib
import io
import json
import re
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from glm_runtime.cli import cli, progress
from glm_runtime.cli.progress import format_duration, show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def replace_stderr(monkeypatch: pytest.MonkeyPatch, made: io.StringIO) -> io.StringIO:
    """Not in a fixture: pytest puts its own stderr back before the test begins."""
    monkeypatch.setattr(sys, "stderr", made)
    return made


def test_each_bar_ends_at_100_percent_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch):
    terminal = replace_stderr(monkeypatch, Terminal())
    with show_progress() as show:
        for stage in ("reading", "writing"):
            for done in range(4):  # never says that it is done
                show(stage, done, 4)
    lines = terminal.getvalue().split("\n")
    last = [line.split("\r")[-1].split() for line in lines if line]
    assert [(words[0], words[2]) for words in last] == [("reading", "100%"), ("writing", "100%")]
    assert all(words[1] == "[" + "#" * 24 + "]" for words in last)


def test_work_that_fails_does_not_claim_100_percent(monkeypatch: pytest.MonkeyPatch):
    terminal = replace_stderr(monkeypatch, Terminal())
    with contextlib.suppress(OSError), show_progress() as show:
        show("writing", 1, 4)
        raise OSError("the disk is full")
    assert "25%" in terminal.getvalue() and "100%" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_the_time_that_remains(monkeypatch: pytest.MonkeyPatch, clock: Clock):
    """Half was done by an earlier run; then a tenth takes 60 s, so four tenths take 4 min."""
    terminal = replace_stderr(monkeypatch, Terminal())
    with show_progress() as show:
        show("reading", 0, 100)
        show("reading", 50, 100)
        clock.now += 60
        show("reading", 60, 100)
        assert terminal.getvalue().endswith("[##############----------]  60%  about 4 min left")
        clock.now += 1
        show("measuring keys and values", 0, 0)  # no part of it is ever reported
        clock.now += 3
        show("measuring keys and values", 0, 0)
    lines = [line.split("\r")[-1].rstrip() for line in terminal.getvalue().split("\n")]
    assert lines[0].endswith("[########################] 100%  1 min")
    assert lines[1] == "measuring keys and values   3 s"


def test_off_a_terminal_there_is_one_line_a_stage(monkeypatch: pytest.MonkeyPatch):
    log = replace_stderr(monkeypatch, io.StringIO())
    with show_progress() as show:
        for stage in ("reading", "writing"):
            for done in range(1000):
                show(stage, done, 1000)
    assert log.getvalue() == "reading\nwriting\n"


def test_long_stages_say_now_and_then_what_remains(monkeypatch: pytest.MonkeyPatch):
    """Also while nothing reports, as in one long call of a library."""
    log = replace_stderr(monkeypatch, io.StringIO())
    monkeypatch.setattr(progress, "_IGNORED_SECONDS", 0.0)
    with show_progress(line_seconds=0.05) as show:
        show("packing", 0, 1)
        _wait_for(log, "packing: 0 s so far\n")
        show("reading", 0, 1000)
        show("reading", 250, 1000)
        _wait_for(log, "left\n")
    assert re.search(r"^reading: 25%, 0 s so far, about \d+ s left$", log.getvalue(), re.MULTILINE)
    assert "\r" not in log.getvalue()
    before = log.getvalue()
    time.sleep(0.2)
    assert log.getvalue() == before  # the thread ended


def _wait_for(log: io.StringIO, words: str) -> None:
    for _ in range(600):
        if words in log.getvalue():
            return
        time.sleep(0.05)
    raise AssertionError(log.getvalue())


@pytest.mark.parametrize(
    ("command", "is_json"),
    [
        (("bench", "DIR", "--rounds", "1", "--json"), True),
        (("doctor", "DIR", "--json"), True),
        (("generate", "DIR", "--prompt", "a", "--max-new-tokens", "2"), False),
        (("generate", "DIR", "--prompts", "FILE", "--max-new-tokens", "2"), True),
        (("chat", "DIR", "--max-new-tokens", "2"), False),
    ],
)
def test_quiet_prints_the_result_only(
    tiny_folder: Path, tmp_path: Path, command: tuple[str, ...], is_json: bool
):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    places = {"DIR": str(tiny_folder), "FILE": str(tmp_path / "in.jsonl")}
    arguments = [places.get(word, word) for word in command]
    loud = CliRunner().invoke(cli, arguments, input="a\n")
    quiet = CliRunner().invoke(cli, [*arguments, "--quiet"], input="a\n")
    assert (loud.exit_code, quiet.exit_code) == (0, 0)
    assert loud.stderr != "" and quiet.stderr == ""
    assert quiet.stdout != ""
    if is_json:
        json.loads(quiet.stdout)


def test_quiet_still_prints_errors(tmp_path: Path):
    result = CliRunner().invoke(cli, ["generate", str(tmp_path), "--prompt", "a", "--quiet"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1


def test_verifying_and_hashing_show_their_stage(tiny_folder: Path):
    for command in (["doctor"], ["generate", "--verify", "--prompt", "a", "--max-new-tokens", "1"]):
        result = CliRunner().invoke(cli, [*command, str(tiny_folder)])
        assert "checking files\n" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59, "59 s"), (60, "1 min"), (725, "12 min"), (12_000, "3 h 20 min")],
)
def test_durations_have_one_or_two_units(seconds: float, text: str):
    assert format_duration(seconds) == text
