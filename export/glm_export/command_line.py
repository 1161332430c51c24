"""What `glm-export` and `glm-eval` share: how they fail, and how they show progress."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import click

from glm_export.errors import ExportError, OptionsError
from glm_runtime import GlmRuntimeError
from glm_runtime.cli.failure import PlainErrorCommand

Show = Callable[[str, int, int], None]
_BAR_WIDTH = 24  # with the longest name and time, a line has 79 characters
_REDRAW_SECONDS = 1.0  # on a terminal
_LINE_SECONDS = 60.0  # in a log
# An export that goes on where another was killed reports all finished work at once. Work reported
# in the first second does not count towards the speed from which the remaining time is estimated.
_IGNORED_SECONDS = 1.0
_MINUTE, _HOUR = 60, 3600


class ExportCommand(PlainErrorCommand):
    """A command whose errors are those of the exporter and the runtime."""

    expected_errors: ClassVar = (ExportError, GlmRuntimeError)
    usage_errors: ClassVar = (OptionsError,)
    memory_advice: ClassVar = "close other programs, or see what `glm-export --plan` says is needed"


quiet_option = click.option("-q", "--quiet", "is_quiet", is_flag=True, help="Show no progress.")


@contextmanager
def show_progress(*, is_quiet: bool) -> Iterator[Show]:
    """Show stages on stderr: a moving bar on a terminal, a line a minute in a log."""
    if is_quiet:
        yield lambda _stage, _done, _total: None
        return
    display = _Display(is_terminal=sys.stderr.isatty())
    try:
        yield display.show
    except BaseException:
        display.close(is_complete=False)
        raise
    display.close(is_complete=True)


def describe_seconds(seconds: float) -> str:
    """A duration with the unit that suits it, for example "12 min"."""
    if seconds < _MINUTE:
        return f"{max(seconds, 1):.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"


class _Stage:
    """One stage of the work: how much of it is done, and since when it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._started = self._counted_from = self._updated = time.monotonic()
        self._first = self._done = self._total = 0
        self._is_counted = False

    def update(self, done: int, total: int) -> None:
        """Note that `done` of `total` is done; a stage that reports no part of it has no bar."""
        now = time.monotonic()
        if now - self._started < _IGNORED_SECONDS:
            self._first, self._counted_from = done, now
        self._done, self._total, self._updated = done, total, now
        self._is_counted |= 0 < done < total

    def finish(self) -> None:
        """Note that the stage is over, also if the last parts of its work were not reported."""
        self._done = self._total

    def describe(self) -> str:
        """A line for a log."""
        percent = f"{self._percent} %, " if self._is_counted else ""
        return f"{self.name}: {percent}{self._describe_time()}"

    def render_bar(self) -> str:
        """A line for a terminal, with a bar if the work is counted."""
        bar = ""
        if self._is_counted:
            filled = "#" * (_BAR_WIDTH * self._percent // 100)
            bar = f" [{filled:-<{_BAR_WIDTH}}] {self._percent:3d} %"
        return f"{self.name:<26}{bar}  {self._describe_time()}"

    @property
    def _percent(self) -> int:
        return 100 * self._done // max(self._total, 1)  # 100 only at the end

    def _describe_time(self) -> str:
        """The time that remains if the speed stays; without a speed the time since the start."""
        now = time.monotonic()
        if not self._is_counted or self._done in (self._first, self._total):
            return describe_seconds(now - self._started)
        speed = (self._done - self._first) / (self._updated - self._counted_from)
        left = (self._total - self._done) / speed - (now - self._updated)
        return f"about {describe_seconds(left)} left"


class _Display:
    """Shows the current stage: a line that is drawn again in place, or lines in a log."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._stage: _Stage | None = None
        self._width = 0  # of the line that the cursor is on
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def show(self, name: str, done: int, total: int) -> None:
        """Begin a stage, or go on within it."""
        with self._lock:
            if self._stage is None or self._stage.name != name:
                self._end_stage(is_complete=True)
                self._stage = _Stage(name)
                if not self._is_terminal:
                    click.echo(name, err=True)
            self._stage.update(done, total)
            self._draw(self._stage)

    def close(self, *, is_complete: bool) -> None:
        """End the output; a stage that is not complete stays as it is."""
        self._is_closed.set()
        with self._lock:
            self._end_stage(is_complete=is_complete)

    def _repeat(self) -> None:
        """Show that time passes, also while no work is reported."""
        while not self._is_closed.wait(_REDRAW_SECONDS if self._is_terminal else _LINE_SECONDS):
            with self._lock:
                if self._stage is not None and not self._is_terminal:
                    click.echo(self._stage.describe(), err=True)
                elif self._stage is not None:
                    self._draw(self._stage)

    def _end_stage(self, *, is_complete: bool) -> None:
        if self._stage is not None and self._is_terminal:
            if is_complete:
                self._stage.finish()
                self._draw(self._stage)
            click.echo(err=True)
        self._stage, self._width = None, 0

    def _draw(self, stage: _Stage) -> None:
        """Draw a stage over the line before it."""
        if not self._is_terminal:
            return
        line = stage.render_bar()[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r{line:<{self._width}}", err=True, nl=False)
        self._width = len(line)
