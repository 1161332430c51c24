"""Progress of long work on stderr: a bar on a terminal, elsewhere lines for a log.

Off a terminal there is one line when a stage begins and one a minute with what remains. `--quiet`
turns all of it off. `glm-run`, `glm-export` and `glm-eval` share this file.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from glm_runtime.folder.manifest import Progress

_QUIET_KEY = "glm_runtime.cli.is_quiet"
_LINE_SECONDS = 60.0
_DRAW_SECONDS = 0.1
_BAR_WIDTH = 30
_LABEL_WIDTH = 24


def _remember_quiet(ctx: click.Context, _parameter: click.Parameter, is_quiet: bool) -> None:
    if is_quiet:
        ctx.meta[_QUIET_KEY] = True


quiet_option = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_quiet,
    help="Print the result and errors only.",
)


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
    shown = _Bar() if sys.stderr.isatty() else _Lines(line_seconds)
    try:
        yield shown.show
        shown.complete()
    finally:
        shown.close()


class _Bar:
    """A line on the terminal that is drawn again as the stage goes on."""

    def __init__(self) -> None:
        self._stage: _Stage | None = None
        self._drawn = 0.0

    def show(self, stage: str, done: int, total: int) -> None:
        if self._stage is None or self._stage.name != stage:
            self.complete()
            self._stage, self._drawn = _Stage(stage, done), 0.0
        self._stage.done, self._stage.total = done, total
        if time.monotonic() - self._drawn >= _DRAW_SECONDS:
            self._draw(self._stage)

    def complete(self) -> None:
        """End the stage's line at 100 %."""
        if self._stage is not None:
            self._stage.done = self._stage.total
            self._draw(self._stage)
            self.close()

    def close(self) -> None:
        """Leave the line, at whatever share it is."""
        if self._stage is not None:
            click.echo(err=True)
            self._stage = None

    def _draw(self, stage: "_Stage") -> None:
        full = int(_BAR_WIDTH * stage.share)
        bar = "#" * full + "-" * (_BAR_WIDTH - full)
        text = f"\r{stage.name:<{_LABEL_WIDTH}} [{bar}] {stage.share:4.0%}  {stage.remaining:<24}"
        click.echo(text, nl=False, err=True)
        self._drawn = time.monotonic()


class _Lines:
    """A line when a stage begins, and one from time to time while it lasts."""

    def __init__(self, line_seconds: float) -> None:
        self._stage: _Stage | None = None
        self._line_seconds = line_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._thread.start()

    def show(self, stage: str, done: int, total: int) -> None:
        if self._stage is None or self._stage.name != stage:
            self._stage = _Stage(stage, done)
            click.echo(stage, err=True)
        self._stage.done, self._stage.total = done, total

    def complete(self) -> None:
        """A finished stage needs no line."""

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _report(self) -> None:
        """Also speaks while nothing calls `show`, as in one long call of a library."""
        while not self._ended.wait(self._line_seconds):
            stage = self._stage
            if stage is not None:
                share = f"{stage.share:.0%}" if stage.done else ""
                spent = f"{format_duration(stage.seconds)} so far"
                words = ", ".join(filter(None, (share, spent, stage.remaining)))
                click.echo(f"{stage.name}: {words}", err=True)


class _Stage:
    """A stage of the work: how far it is, and since when."""

    def __init__(self, name: str, done: int) -> None:
        self.name = name
        self.done, self.total = done, 0
        self._first_done = done
        self._start = time.monotonic()

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def remaining(self) -> str:
        """The time left in words; "" where nothing can be said."""
        advanced = self.done - self._first_done
        if advanced <= 0 or self.done >= self.total:
            return ""
        seconds = self.seconds * (self.total - self.done) / advanced
        return f"{format_duration(seconds)} left"


def format_duration(seconds: float) -> str:
    """Write a duration in one or two units: 45 s, 12 min, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
