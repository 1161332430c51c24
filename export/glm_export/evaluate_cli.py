"""The `glm-eval` command: it compares exported folders with their original checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack

import click

import glm_export
from glm_export.command_line import (
    ExportCommand,
    adapter_option,
    find_adapters,
    read_adapters,
)
from glm_export.early_checks import check_evaluation_inputs
from glm_export.errors import OptionsError
from glm_export.evaluation.pictures import check_pictures, write_pictures
from glm_export.packages import require_export_packages, require_lm_eval, require_onnxruntime
from glm_runtime.cli.failure import debug_option, run_program
from glm_runtime.cli.hub import FolderPath, find_checkpoint
from glm_runtime.cli.progress import quiet_option, say, show_progress

if TYPE_CHECKING:
    from glm_export.evaluation.task_metrics import TaskOptions

_EXAMPLES = """\b
Examples:
  glm-eval artifacts/glm4-sample artifacts/sample-int4 --layers artifacts/layers.svg --json
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4 artifacts/glm4-int8 --plot artifacts/loss.svg
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4 --tasks hellaswag,arc_easy --limit 200
"""
_PATH = click.Path(path_type=Path)
_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Choices(TypedDict):
    """The options' values, named as click passes them."""

    text: Path | None
    window: int
    max_tokens: int
    plot: Path | None
    layers: Path | None
    adapters: tuple[str, ...]
    tasks: str | None
    include_path: Path | None
    limit: float | None
    num_fewshot: int | None
    apply_chat_template: bool
    system_instruction: str | None
    is_json: bool


def _add_task_options(function: _Function) -> _Function:
    """Add the options of lm-eval's tasks, which have lm-eval's names."""
    options = (
        click.option(
            "--tasks",
            metavar="NAME[,NAME]",
            help="Run these tasks of lm-evaluation-harness over the checkpoint and every folder, "
            "and add what they reach to the table. A name may be a group, or a pattern with *. "
            "Needs the extra lm-eval.",
        ),
        click.option(
            "--include-path",
            metavar="DIR",
            type=_PATH,
            help="Folder with YAML files of your own tasks, for --tasks.",
        ),
        click.option(
            "--limit",
            metavar="N",
            type=click.FLOAT,
            help="Number of documents of each task to read, or a share of them below 1.  [default: "
            "all]",
        ),
        click.option(
            "--num-fewshot",
            metavar="N",
            type=click.IntRange(0),
            help="Number of examples before each question of a task.  [default: the task's own]",
        ),
        click.option(
            "--apply-chat-template",
            is_flag=True,
            help="Write the questions of the tasks with the chat template.",
        ),
        click.option(
            "--system-instruction",
            metavar="TEXT",
            help="Text before each question of a task.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


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
    help="Draw bits per weight against KL divergence of several folders, and against the first "
    "eight figures of --tasks, into this .svg, .png or .pdf file.",
)
@click.option(
    "--layers",
    type=_PATH,
    help="Draw the error of each layer's output into this .svg, .png or .pdf file. At most 8,192 "
    "tokens, or as many as fit in 1 GiB, are compared.",
)
@adapter_option
@_add_task_options
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
    same token the highest probability. Differences come with intervals of 95 % confidence; they are
    called better or worse only where the interval excludes zero.
    """
    require_export_packages()
    require_onnxruntime()
    tasks = _read_tasks(choices)
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
        tasks=tasks,
    )
    with show_progress() as show:
        report = evaluate(options, show)
    show_result = table.format_json if choices["is_json"] else table.format_table
    click.echo(show_result(report))
    if not choices["is_json"]:
        for note in report.notes:
            say(f"note: {note}")
    write_pictures(report, choices["plot"], choices["layers"])


def _read_tasks(choices: _Choices) -> "TaskOptions | None":
    """Read the options of the tasks.

    Raises:
        MissingPackageError: there are tasks, but lm-eval is not installed.
        OptionsError: a value is not valid, or an option needs --tasks.
    """
    from glm_export.evaluation.task_metrics import TaskOptions  # noqa: PLC0415 - needs numpy

    given = choices["tasks"]
    if given is None:
        others = {
            "--include-path": choices["include_path"],
            "--limit": choices["limit"],
            "--num-fewshot": choices["num_fewshot"],
            "--apply-chat-template": choices["apply_chat_template"] or None,
            "--system-instruction": choices["system_instruction"],
        }
        for name, value in others.items():
            if value is not None:
                raise OptionsError(f"{name} is for tasks; add --tasks, or leave it out.")
        return None
    require_lm_eval()
    return TaskOptions(
        tuple(name.strip() for name in given.split(",") if name.strip()),
        choices["include_path"],
        choices["limit"],
        choices["num_fewshot"],
        choices["apply_chat_template"],
        choices["system_instruction"],
    )


def main() -> None:
    """Entry point."""
    run_program(command, "glm-eval")
