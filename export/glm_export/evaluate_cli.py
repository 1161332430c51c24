"""The `glm-eval` command: it compares exported folders with their original checkpoint."""

from pathlib import Path
from typing import TypedDict, Unpack

import click

import glm_export
from glm_export.command_line import (
    ExportCommand,
    adapter_option,
    find_adapters,
    read_adapters,
)
from glm_export.early_checks import check_evaluation_inputs
from glm_export.evaluation.pictures import check_pictures, write_pictures
from glm_export.packages import require_export_packages, require_onnxruntime
from glm_runtime.cli.failure import debug_option, run_program
from glm_runtime.cli.hub import FolderPath, find_checkpoint
from glm_runtime.cli.progress import quiet_option, say, show_progress

_EXAMPLES = """\b
Examples:
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4 artifacts/glm4-int8 --plot artifacts/loss.svg
  glm-eval artifacts/glm4-sample artifacts/sample-int4 --layers artifacts/layers.svg --json
"""
_PATH = click.Path(path_type=Path)


class _Choices(TypedDict):
    """The options' values, named as click passes them."""

    text: Path | None
    window: int
    max_tokens: int
    plot: Path | None
    layers: Path | None
    adapters: tuple[str, ...]
    is_json: bool


@click.command(name="glm-eval", cls=ExportCommand, epilog=_EXAMPLES)
@click.argument("checkpoint", type=FolderPath())
@click.argument("folder", type=_PATH)
@click.argument("more_folders", metavar="[FOLDER ...]", nargs=-1, type=_PATH)
@click.option(
    "--text",
    type=_PATH,
    help="UTF-8 file with the text to read.  [default: an English and Chinese text in the package]",
)
@click.option(
    "--window",
    metavar="N",
    type=click.IntRange(2),
    default=512,
    show_default=True,
    help="Number of tokens per window.",
)
@click.option(
    "--max-tokens",
    metavar="N",
    type=click.IntRange(2),
    default=16384,
    show_default=True,
    help="Largest number of tokens to read; the windows are spread evenly over a longer text.",
)
@click.option(
    "--plot",
    type=_PATH,
    help="Draw bits per weight against KL divergence of several folders into this .svg, .png or "
    ".pdf file.",
)
@click.option(
    "--layers",
    type=_PATH,
    help="Draw the error of each layer's output into this .svg, .png or .pdf file. At most 8,192 "
    "tokens, or as many as fit in 1 GiB, are compared.",
)
@adapter_option
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@quiet_option
@debug_option
@click.version_option(glm_export.__version__, prog_name="glm-eval")
def command(
    checkpoint: Path, folder: Path, more_folders: tuple[Path, ...], **choices: Unpack[_Choices]
) -> None:
    """Compare each exported FOLDER with the CHECKPOINT from which it was exported.

    All of them read the same text, in windows that start at position 0. KL is the KL divergence
    KL(original || folder) of the next-token distributions in nats. Top-1 is how often both give the
    same token the highest probability.
    """
    require_export_packages()
    require_onnxruntime()
    adapters = find_adapters(read_adapters(choices["adapters"]))
    checkpoint, folders = find_checkpoint(checkpoint), (folder, *more_folders)
    check_evaluation_inputs(checkpoint, folders, choices["text"], adapters)
    check_pictures(choices["plot"], choices["layers"], len(folders))
    from glm_export.evaluation import table  # noqa: PLC0415 - torch is an extra
    from glm_export.evaluation.evaluate import evaluate  # noqa: PLC0415
    from glm_export.evaluation.inputs import EvaluationOptions  # noqa: PLC0415

    options = EvaluationOptions(
        checkpoint,
        folders,
        choices["text"],
        choices["window"],
        choices["max_tokens"],
        has_layers=choices["layers"] is not None,
        adapters=adapters,
    )
    with show_progress() as show:
        report = evaluate(options, show)
    show_result = table.format_json if choices["is_json"] else table.format_table
    click.echo(show_result(report))
    if not choices["is_json"]:
        for note in report.notes:
            say(f"note: {note}")
    write_pictures(report, choices["plot"], choices["layers"])


def main() -> None:
    """Entry point."""
    run_program(command, "glm-eval")
