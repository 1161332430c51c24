"""The program `glm-run`, with one file per command.

Only this package parses arguments, prints and exits.
"""

import click

import glm_runtime
from glm_runtime.cli.batch import batch
from glm_runtime.cli.bench import bench
from glm_runtime.cli.chat import chat
from glm_runtime.cli.doctor import doctor
from glm_runtime.cli.failure import PlainErrorGroup, debug_option, run_program
from glm_runtime.cli.generate import generate
from glm_runtime.cli.info import info
from glm_runtime.cli.options import show_examples
from glm_runtime.cli.prepare import prepare
from glm_runtime.cli.serve import serve


@click.group(
    name="glm-run",
    cls=PlainErrorGroup,
    epilog=show_examples(
        "glm-run chat artifacts/glm4-int4",
        'glm-run generate artifacts/glm4-int4 --prompt "Write a poem about the moon."',
        "glm-run doctor artifacts/glm4-int4",
    ),
)
@click.version_option(glm_runtime.__version__, prog_name="glm-run")
@debug_option
def cli() -> None:
    """Run a model that glm-export wrote on ONNX Runtime."""


for _command in (generate, batch, chat, serve, bench, info, doctor, prepare):
    _command.context_settings = cli.context_settings  # click caches -h also without the group
    cli.add_command(_command)


def main() -> None:
    """Entry point of `glm-run`; exits with 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    run_program(cli, "glm-run")
