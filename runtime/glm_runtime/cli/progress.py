"""Progress of long work on stderr: a bar on a terminal, elsewhere lines for a log.

Off a terminal there is one line when a stage begins and one a minute with what remains. `--quiet`
turns all of it off. `glm-run`, `glm-export` and `glm-eval` share this file.
"""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from glm_runtime.cli.failure import make_flag
from glm_runtime.progress import Progress

_QUIET_KEY = "glm_runtime.cli.is_quiet"
_LINE_SECONDS = 60.0
_REDRAW_SECONDS = 1.0  # between two drawings of a bar, so that its time moves
_DRAW_SECONDS = 0.1  # at least, also if the work reports more often
# Work that goes on where an earlier run was killed reports at once what that run had done. What is
# reported within this time does not count for the speed.
_IGNORED_SECONDS = 1.0
_BAR_WIDTH = 24
_LABEL_WIDTH = 26


quiet_option = make_flag(_QUIET_KEY, "--quiet", "-q", text="Print the result and errors only.")


def is_quiet() -> bool:
    """Return whether the user gave --quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_QUIET_KEY))


def say(message: str) -> None:
    """Print a line for people on stderr, unless the user gave --quiet."""
    if not is_quiet():
        click.echo(message, err=True)


@contextmanager
def show_progress(line_seconds: float = _LINE_SECONDS) -> Iterator[Progress]:
    """Yield a function (stage, done, total) that shows how far the work is.

    Args:
        line_seconds: longest time between two lines off a terminal.
    """
    if is_quiet():
        yield lambda _stage, _done, _total: None
        return
    display = _Display(None if sys.stderr.isatty() else line_seconds)
    try:
        yield display.show
    except BaseException:
        display.close(is_complete=False)
        raise
    display.close(is_complete=True)


class _Display:
    """The current stage: a line that is drawn again in place, or lines for a log."""

    def __init__(self, line_seconds: float | None) -> None:
        """Start a thread, which shows that time passes while nothing calls `show`.

        Args:
            line_seconds: time between two lines of a log; None: stderr is a terminal.
        """
        self._line_seconds = line_seconds
        self._stage: _Stage | None = None
        self._width = 0  # of the line that the cursor is on
        self._drawn = 0.0
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        threading.Thread(target=self._repeat, daemon=True).start()

    def show(self, name: str, done: int, total: int) -> None:
        """Begin a stage, or go on within it."""
        with self._lock:
            is_new = self._stage is None or self._stage.name != name
            if is_new:
                self._end_stage(is_complete=True)
            if self._stage is None:
                self._stage = _Stage(name)
            self._stage.update(done, total)
            if is_new and self._line_seconds is not None:
                click.echo(name, err=True)
            if is_new or time.monotonic() - self._drawn >= _DRAW_SECONDS:
                self._draw(self._stage)

    def close(self, *, is_complete: bool) -> None:
        """End the output; a stage that is not complete stays at its share."""
        self._is_closed.set()
        with self._lock:
            self._end_stage(is_complete=is_complete)

    def _repeat(self) -> None:
        while not self._is_closed.wait(self._line_seconds or _REDRAW_SECONDS):
            with self._lock:
                if self._stage is not None and self._line_seconds is not None:
                    click.echo(self._stage.describe(), err=True)
                elif self._stage is not None:
                    self._draw(self._stage)

    def _end_stage(self, *, is_complete: bool) -> None:
        if self._stage is not None and self._line_seconds is None:
            if is_complete:
                self._stage.finish()
            self._draw(self._stage)
            click.echo(err=True)
        self._stage, self._width = None, 0

    def _draw(self, stage: "_Stage") -> None:
        """Draw a stage over the line before it."""
        if self._line_seconds is not None:
            return
        line = stage.render_bar()[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r{line:<{self._width}}", err=True, nl=False)
        self._width, self._drawn = len(line), time.monotonic()


class _Stage:
    """A stage of the work: how far it is, and since when."""

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
        """Write a line for a log: the share, the time so far and the time left."""
        percent = f"{self._percent}%" if self._is_counted else ""
        spent = f"{format_duration(time.monotonic() - self._started)} so far"
        return f"{self.name}: {', '.join(filter(None, (percent, spent, self._describe_rest())))}"

    def render_bar(self) -> str:
        """Write a line for a terminal, with a bar if the work is counted."""
        bar = ""
        if self._is_counted:
            filled = "#" * (_BAR_WIDTH * self._percent // 100)
            bar = f" [{filled:-<{_BAR_WIDTH}}] {self._percent:3d}%"
        spent = format_duration(time.monotonic() - self._started)
        return f"{self.name:<{_LABEL_WIDTH}}{bar}  {self._describe_rest() or spent}"

    @property
    def _percent(self) -> int:
        return 100 * self._done // max(self._total, 1)  # 100 only at the end

    def _describe_rest(self) -> str:
        """Write the time left if the speed stays; "" where there is no speed yet."""
        if not self._is_counted or self._done in (self._first, self._total):
            return ""
        speed = (self._done - self._first) / (self._updated - self._counted_from)
        left = (self._total - self._done) / speed - (time.monotonic() - self._updated)
        return f"about {format_duration(max(left, 1))} left"


def format_duration(seconds: float) -> str:
    """Write a duration in one or two units: 45 s, 12 min, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
