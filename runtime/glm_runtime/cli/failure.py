"""How commands fail: one sentence on stderr, the right exit code, a traceback only on demand."""

import traceback

import click

from glm_runtime.errors import GlmRuntimeError

_DEBUG_KEY = "glm_runtime.cli.is_debug"
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


class PlainErrorGroup(click.Group):
    """Turns every error of a command into `Error: ...` and exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command the user named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get(_DEBUG_KEY):
                click.echo(traceback.format_exc(), err=True, nl=False)
            raise click.ClickException(describe(error)) from error


def describe(error: Exception) -> str:
    """One sentence for people."""
    if isinstance(error, GlmRuntimeError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory is used up; close other programs, or see `glm-run doctor DIR`."
    if isinstance(error, OSError):
        return f"the system refused a file ({error}); check that it exists and may be read."
    return (
        f"this is a fault in glm-run ({type(error).__name__}: {error}); "
        "run again with --debug and report what it prints."
    )


def _remember_debug(ctx: click.Context, _parameter: click.Parameter, is_debug: bool) -> None:
    if is_debug:
        ctx.meta[_DEBUG_KEY] = True


debug_option = click.option(
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember_debug,
    help="Print the traceback of an error.",
)
