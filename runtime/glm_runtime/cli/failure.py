"""How every command of the project fails: one sentence, the right exit code, no traceback.

`glm-run`, `glm-export` and `glm-eval` share this file. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 interrupted. `--debug` prints the traceback before the sentence.
"""

import io
import sys
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import click

from glm_runtime.errors import GlmRuntimeError, describe_os_error, is_panic, to_printable

_DEBUG_KEY = "glm_runtime.cli.is_debug"
_INTERRUPTED = 130  # 128 + SIGINT, as shells count
# How allocators of PyTorch, ONNX Runtime and C++ say that there is no memory; they raise
# RuntimeError or a class of their own.
_THREAD_WORDS = ("can't start new thread", "pthread_create", "thread constructor failed")
_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "map segment",
)


class PlainErrorCommand(click.Command):
    """A command that turns every error into `Error: ...` on stderr and an exit code.

    Attributes:
        expected_errors: errors whose message is already a sentence for the user.
        usage_errors: those of them that mean wrong usage, exit code 2.
        memory_advice: what the user can do when memory runs out.
    """

    expected_errors: ClassVar[tuple[type[Exception], ...]] = (GlmRuntimeError,)
    usage_errors: ClassVar[tuple[type[Exception], ...]] = ()
    memory_advice: ClassVar[str] = "close other programs, or see `glm-run doctor DIR`"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a command with `-h` beside `--help`."""
        super().__init__(*args, **kwargs)
        self.context_settings["help_option_names"] = ["-h", "--help"]

    def invoke(self, ctx: click.Context) -> object:
        """Run the command the user named."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            words = f"Interrupted; {error}." if str(error) else "Interrupted."
            click.echo(f"\n{words}", err=True)  # a new line, since the terminal shows ^C
            raise click.exceptions.Exit(_INTERRUPTED) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except BaseException as error:
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            if ctx.meta.get(_DEBUG_KEY):
                click.echo(traceback.format_exc(), err=True, nl=False)
            kind = _UsageSentence if isinstance(error, self.usage_errors) else click.ClickException
            raise kind(self._describe(error, ctx.find_root().info_name)) from error

    def _describe(self, error: BaseException, program: str | None) -> str:
        """One sentence on one line, without what a file's names could do to a terminal."""
        if isinstance(error, self.expected_errors):
            return _to_one_line(str(error))
        found = f"{type(error).__name__}: {_to_one_line(str(error))}"
        if isinstance(error, MemoryError) or any(word in found for word in _MEMORY_WORDS):
            return f"the memory is used up; {self.memory_advice}."
        if any(word in found for word in _THREAD_WORDS):
            return (
                "the system starts no more threads; raise the limit of processes (`ulimit -u`) or "
                "of memory, or close other programs."
            )
        if isinstance(error, OSError):
            return describe_system_error(error)
        return (
            f"this is a fault in {program} ({found}); "
            "run again with --debug and report what it prints."
        )


class _UsageSentence(click.ClickException):
    exit_code = 2


class PlainErrorGroup(PlainErrorCommand, click.Group):
    """A group whose commands fail as `PlainErrorCommand` says."""


def run_program(command: click.Command, name: str) -> None:
    """Run a command as a program, with UTF-8 on both streams, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")  # answers may be Chinese
    try:
        command(prog_name=name)
    except OSError as error:  # of --help and --version, which run before the command itself
        sys.exit(f"Error: {describe_system_error(error)}")


def describe_system_error(error: OSError) -> str:
    """Return a sentence about a file, without the names of Python's classes."""
    name = _to_one_line(str(error.filename or "a file"))
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist; check the path."
    if isinstance(error, IsADirectoryError):
        return f"{name} is a folder where a file is expected; give a file."
    reason = _to_one_line(describe_os_error(error))
    advice = "its permissions" if isinstance(error, PermissionError) else "the path and the disk"
    return f"the system refused {name} ({reason}); check {advice}."


def _to_one_line(message: str) -> str:
    return to_printable(" ".join(message.split()))


def make_flag(key: str, *names: str, text: str) -> Callable[[Any], Any]:
    """Make a flag that is not passed to the command but sets `key` of the context's `meta`."""

    def remember(ctx: click.Context, _parameter: click.Parameter, is_given: bool) -> None:
        if is_given:
            ctx.meta[key] = True

    return click.option(
        *names, is_flag=True, is_eager=True, expose_value=False, callback=remember, help=text
    )


debug_option = make_flag(_DEBUG_KEY, "--debug", text="Print the traceback of an error.")
