"""The frame of every benchmark: options, work folder, the machine, and one line of JSON at the end.

A benchmark is a function that takes its options, prints a table and returns its figures.
`benchmark` makes it a command.
"""

import functools
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import click

from benchmarks.checkpoints import SHAPES
from benchmarks.measurement import describe_machine, show_machine
from benchmarks.processes import ChildError
from glm_runtime import GlmRuntimeError
from glm_runtime.graph.machine import count_usable_cores

Figures = Mapping[str, object]
_FAILURES: tuple[type[Exception], ...] = (ChildError, GlmRuntimeError, OSError, CalledProcessError)
_WORK_HELP = "Folder that keeps what is slow to make. Default: a temporary folder."

folder_option = click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Exported folder to measure. Default: one is made.",
)
shape_option = click.option(
    "--shape",
    type=click.Choice(sorted(SHAPES)),
    default="edge-1.5b",
    show_default=True,
    help="Shape of the random checkpoint.",
)
threads_option = click.option(
    "--threads",
    type=click.IntRange(min=1),
    default=count_usable_cores,
    help="Number of threads of each system. Default: one for each core.",
)
work_option = click.option(
    "--work", type=click.Path(file_okay=False, path_type=Path), help=_WORK_HELP
)


def rounds_option(default: int) -> Callable[[Any], Any]:
    """`--rounds`, the number of measurements of each system."""
    return click.option(
        "--rounds",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Number of measurements of each system. The systems take turns.",
    )


def split_names(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """Callback of an option that takes several words with commas between."""
    del context, option
    return text.split(",")


def benchmark(
    *packages: str, examples: str, failures: tuple[type[Exception], ...] = ()
) -> Callable[[Callable[..., Figures]], click.Command]:
    """Make a function that measures a command.

    Args:
        packages: whose versions the output names.
        examples: command lines for the end of `--help`, one a line.
        failures: errors of the function that end the command with a sentence, besides the usual.
    """

    def wrap(function: Callable[..., Figures]) -> click.Command:
        @functools.wraps(function)
        def run(is_json: bool, **choices: Any) -> None:
            name = function.__name__
            machine = describe_machine(packages)
            with ExitStack() as stack:
                if is_json:
                    stack.enter_context(redirect_stdout(sys.stderr))
                settings = {key: _as_plain(value) for key, value in choices.items()}
                show_machine({**machine, **settings})
                if "work" in choices:
                    temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    choices["work"] = (choices["work"] or temporary).resolve()
                    choices["work"].mkdir(parents=True, exist_ok=True)
                try:
                    figures = function(**choices)
                except (*_FAILURES, *failures) as error:
                    raise click.ClickException(f"{name}: {error}") from error
            content = {"benchmark": name, "settings": settings, **figures, "machine": machine}
            print(json.dumps(content))

        epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples.split("\n"))
        option = click.option(
            "--json", "is_json", is_flag=True, help="Print nothing on stdout but the JSON object."
        )
        return click.command(function.__name__.replace("_", "-"), epilog=epilog)(option(run))

    return wrap


def say(text: str) -> None:
    """Tell the user on stderr what is being done."""
    print(text, file=sys.stderr, flush=True)


def say_round(index: int, rounds: int) -> None:
    """Tell the user which round begins; the round -1 warms up."""
    say("warming up" if index < 0 else f"round {index + 1} of {rounds}")


def _as_plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
