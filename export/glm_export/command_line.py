"""What `glm-export` and `glm-eval` share: how they fail, and their option `--adapter`."""

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import click

from glm_export.checkpoint.adapters import Adapter, parse_adapter
from glm_export.errors import ExportError, OptionsError
from glm_runtime import GlmRuntimeError
from glm_runtime.cli.failure import PlainErrorCommand
from glm_runtime.cli.hub import FolderPath, find_adapter


class ExportCommand(PlainErrorCommand):
    """A command whose errors are those of the exporter and the runtime."""

    expected_errors: ClassVar = (ExportError, GlmRuntimeError)
    usage_errors: ClassVar = (OptionsError,)
    memory_advice: ClassVar = "close other programs, or see what `glm-export --plan` says is needed"


# The values are read by `read_adapters` in the command, where an error becomes one sentence.
adapter_option = click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="DIR[=WEIGHT]",
    help="Merge a LoRA adapter of PEFT into the checkpoint's weights, multiplied by WEIGHT. DIR "
    "may be a model of the hub. May be repeated.  [default for WEIGHT: 1]",
)


def read_adapters(texts: Iterable[str]) -> tuple[Adapter, ...]:
    """Parse the values of the option; what begins with `./` is a folder and no model of the hub.

    Raises:
        OptionsError: a weight is not a number, is 0 or not finite.
    """
    found = []
    for text in texts:
        adapter = parse_adapter(text)
        start = "./" if text.startswith(("./", ".\\")) else ""
        folder = FolderPath().convert(f"{start}{adapter.folder}", None, None)
        found.append(replace(adapter, folder=folder))
    return tuple(found)


def find_adapters(adapters: Iterable[Adapter]) -> tuple[Adapter, ...]:
    """Download those adapters that are models of the hub.

    Raises:
        HubError: one cannot be downloaded.
    """
    return tuple(replace(adapter, folder=find_adapter(adapter.folder)) for adapter in adapters)
