"""What `glm-export` and `glm-eval` share: the one-sentence errors, exit codes, progress bars."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from glm_export.errors import ExportError, OptionsError
from glm_runtime import GlmRuntimeError

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
        click.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, OptionsError) else 1)


@contextmanager
def show_progress() -> Iterator[Show]:
    """A bar on stderr that names its stage, or nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda _stage, _done, _total: None
        return
    bar = click.progressbar(length=1, file=sys.stderr, show_pos=False, width=30)
    started = time.monotonic()

    def show(stage: str, done: int, total: int) -> None:
        bar.label = f"{stage:<20} {time.monotonic() - started:5.0f} s"
        bar.length = max(total, 1)
        bar.update(max(0, done - bar.pos))
        bar.render_progress()

    with bar:
        yield show
