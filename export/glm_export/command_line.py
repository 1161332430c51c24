"""What `glm-export` and `glm-eval` share: how they fail, and their option `--adapter`."""

from typing import ClassVar

import click

from glm_export.errors import ExportError, OptionsError
from glm_runtime import GlmRuntimeError
from glm_runtime.cli.failure import PlainErrorCommand


class ExportCommand(PlainErrorCommand):
    """A command whose errors are those of the exporter and the runtime."""

    expected_errors: ClassVar = (ExportError, GlmRuntimeError)
    usage_errors: ClassVar = (OptionsError,)
    memory_advice: ClassVar = "close other programs, or see what `glm-export --plan` says is needed"


# The values are parsed by `parse_adapter` in the command, where an error becomes one sentence.
adapter_option = click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="DIR[=WEIGHT]",
    help="Merge a LoRA adapter of PEFT into the checkpoint's weights, multiplied by WEIGHT. May be "
    "repeated.  [default for WEIGHT: 1]",
)
