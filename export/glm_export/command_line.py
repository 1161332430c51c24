"""What `glm-export` and `glm-eval` share: the one-sentence errors, exit codes, progress bars."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from glm_export.errors import ExportError, OptionsError
from glm_runtime import GlmRuntimeError

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

Show = Callable[[str, int, int], None]


def run_command(command: click.Command) -> None:
    """Run a click command with our exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        sys.exit(command.main(prog_name=command.name, standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; nothing was changed.", err=True)
        sys.exit(130)
    except (ExportError, GlmRuntimeError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        click.echo(f"Error: {_to_one_line(str(error))}", err=True)
        sys.exit(2 if isinstance(error, OptionsError) else 1)


def _to_one_line(message: str) -> str:
    """Without line breaks, and without what a checkpoint's names could do to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))


@contextmanager
def show_progress() -> Iterator[Show]:
    """One line a stage on stderr, with a bar where it can be counted; nothing off a terminal."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    lines = _StageLines()
    try:
        yield lines.show
    finally:
        lines.finish()


class _StageLines:
    """The stages so far as lines, the last one perhaps a bar that still moves."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: ProgressBar[int] | None = None

    def show(self, stage: str, done: int, total: int) -> None:
        """Go on to a stage, or further within it."""
        if stage != self._stage:
            self.finish()
            self._stage = stage
            if done == total or not done:
                click.echo(stage, err=True)
        if done > 0 and (self._bar or done < total):
            self._advance(done, total)

    def finish(self) -> None:
        """End the line of a bar."""
        if self._bar is not None:
            self._bar.render_finish()
            click.echo(err=True)
            self._bar = None

    def _advance(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = click.progressbar(
                length=total, label=f"{self._stage:<22}", file=sys.stderr, width=30
            )
        self._bar.update(done - self._bar.pos)
