"""The `glm-eval` command: what folders lost against their original, as tables, JSON, pictures."""

from pathlib import Path
from typing import TypedDict, Unpack

import click

import glm_export
from glm_export.command_line import run_command, show_progress
from glm_export.evaluation.pictures import check_pictures, write_pictures
from glm_export.packages import require_export_packages

_EXAMPLES = """\b
Examples:
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4 artifacts/glm4-int8 --plot loss.svg
  glm-eval artifacts/glm4-sample artifacts/sample-int4 --layers layers.svg --json
"""
_PATH = click.Path(path_type=Path)


class _Choices(TypedDict):
    """The options as click hands them over."""

    text: Path | None
    window: int
    max_tokens: int
    plot: Path | None
    layers: Path | None
    is_json: bool


@click.command(name="glm-eval", epilog=_EXAMPLES)
@click.argument("checkpoint", type=_PATH)
@click.argument("folder", type=_PATH)
@click.argument("more_folders", metavar="[FOLDER ...]", nargs=-1, type=_PATH)
@click.option("--text", type=_PATH, help="UTF-8 file.  [default: English and Chinese, shipped]")
@click.option("--window", default=512, show_default=True, help="Tokens per window.")
@click.option("--max-tokens", default=16384, show_default=True, help="Windows are spread evenly.")
@click.option("--plot", type=_PATH, help="Draw bits per weight against KL: .svg, .png or .pdf.")
@click.option(
    "--layers",
    type=_PATH,
    help="Draw the error of each layer's output: .svg, .png or .pdf. Over 8,192 tokens at most, or "
    "as many as have room in 1 GiB.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show an error's traceback.")
@click.version_option(glm_export.__version__, prog_name="glm-eval")
def command(
    checkpoint: Path, folder: Path, more_folders: tuple[Path, ...], **choices: Unpack[_Choices]
) -> None:
    """Compare each FOLDER with the CHECKPOINT it was made from.

    All read the same text, in windows that start at position 0. KL is KL(original || folder) of
    the next-token distributions, in nats; top-1 is how often both prefer the same token.
    """
    require_export_packages()
    from glm_export.evaluation import table  # noqa: PLC0415 - torch is an extra
    from glm_export.evaluation.evaluate import evaluate  # noqa: PLC0415
    from glm_export.evaluation.inputs import EvaluationOptions  # noqa: PLC0415

    options = EvaluationOptions(
        checkpoint,
        (folder, *more_folders),
        choices["text"],
        choices["window"],
        choices["max_tokens"],
        has_layers=choices["layers"] is not None,
    )
    check_pictures(choices["plot"], choices["layers"])
    with show_progress() as show:
        report = evaluate(options, show)
    show_result = table.format_json if choices["is_json"] else table.format_table
    click.echo(show_result(report))
    write_pictures(report, choices["plot"], choices["layers"])


def main() -> None:
    """Entry point."""
    run_command(command)
