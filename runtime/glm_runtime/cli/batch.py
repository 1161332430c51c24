"""`glm-run batch` answers the rows of many files on Ray. The work itself is the room `ray`."""

import dataclasses
import json
import sys
from contextlib import redirect_stdout
from typing import Any

import click

from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.generate import logprobs_option
from glm_runtime.cli.generation_options import (
    GenerationOptions,
    chat_option,
    generation_options,
    rows_option,
)
from glm_runtime.cli.hub import FolderPath, find_folder
from glm_runtime.cli.options import (
    ChatInputs,
    Command,
    MachineOptions,
    chat_inputs,
    count_option,
    gather,
    json_option,
    rope_options,
    show_examples,
)
from glm_runtime.cli.progress import quiet_option, say, show_progress
from glm_runtime.errors import PromptError
from glm_runtime.graph.machine import MAX_THREADS
from glm_runtime.ray.addresses import is_address
from glm_runtime.ray.job import BatchOptions, BatchReport, as_json, run_batch
from glm_runtime.ray.output import FORMATS
from glm_runtime.ray.rows import Columns

_JOB_OPTIONS = (
    click.option(
        "--input",
        "pattern",
        metavar="PATTERN",
        required=True,
        help="File, folder, pattern in quotes, or fsspec address of JSON Lines, Parquet, CSV, ORC, "
        "Avro or text files.  Rows are as the lines of `generate --prompts`.",
    ),
    click.option(
        "--output",
        metavar="DIR",
        required=True,
        help="Folder or fsspec address for the answers; running again completes it.",
    ),
    click.option(
        "--ray",
        "address",
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="HOST:PORT of a Ray cluster, or auto.  [environment: RAY_ADDRESS; default: start Ray "
        "on this machine]",
    ),
    count_option(
        "--workers",
        "Number of workers, each with a loaded model.  [default: one on each machine]",
    ),
    click.option(
        "--threads",
        metavar="N",
        type=click.IntRange(1, MAX_THREADS),
        help="Number of threads of each worker.  [default: the machine's processors, divided by "
        "its workers]",
    ),
    rows_option,
    count_option("--shard-rows", "Number of rows of an output file.", 1000),
    click.option(
        "--format",
        "kind",
        type=click.Choice(FORMATS),
        default=FORMATS[0],
        show_default=True,
        help="Format of the output files.",
    ),
    click.option(
        "--id-column",
        metavar="NAME",
        help="Column of the rows' ids.  [default: custom_id, else id]",
    ),
    click.option(
        "--prompt-column",
        metavar="NAME",
        help="Column of the prompts of a table.  [default: prompt or messages]",
    ),
    click.option(
        "--huge-pages/--no-huge-pages",
        default=True,
        show_default=True,
        help="Move the weights onto huge pages (Linux).",
    ),
)


def _job_options(command: Command) -> Command:
    """Add the options of a job, as one argument `job`."""
    return gather("job", _JOB_OPTIONS, dict, command)


@click.command(
    epilog=show_examples(
        "glm-run batch artifacts/glm4-int4 --input 'in/*.jsonl' --output out",
        "glm-run batch artifacts/glm4-int4 --input in.parquet --prompt-column text --output out",
        "glm-run batch /models/glm4 --input s3://b/in --output s3://b/out --ray head:6379",
    )
)
@click.argument("folder", metavar="DIR")
@_job_options
@chat_option
@logprobs_option
@chat_inputs
@generation_options
@rope_options
@json_option
@quiet_option
@debug_option
def batch(
    folder: str,
    job: dict[str, Any],
    inputs: ChatInputs,
    options: GenerationOptions,
    machine: MachineOptions,
    **values: Any,
) -> None:
    """Answer the rows of many files with Ray, on this machine or on a cluster.

    DIR is an exported folder that all machines see at the same path, or an fsspec address, from
    which each machine copies it once. It runs on CPUs. The package ray is needed: `pip install
    'ray[data]'`.
    """
    is_chat, is_json = values.pop("is_chat"), values.pop("is_json")
    options.require_use(is_beams=False, is_many=True)
    if not is_chat:
        inputs.refuse_use("--raw, which sends no messages")
    settings = dataclasses.replace(options.settings(), top_logprobs=values["top_logprobs"])
    pattern, output, address = (job.pop(name) for name in ("pattern", "output", "address"))
    chosen = BatchOptions(
        columns=Columns(job.pop("id_column"), job.pop("prompt_column")),
        has_huge_pages=job.pop("huge_pages"),
        settings=settings,
        options=inputs.read(is_sanitized=False) if is_chat else None,
        rope_scaling=machine.scaling,
        **job,
    )
    if not is_address(folder):
        folder = str(find_folder(FolderPath().convert(folder, None, None)))
    try:
        # Ray prints what happens to machines, and stdout is for the result.
        with show_progress() as progress, redirect_stdout(sys.stderr):
            report = run_batch(
                folder, pattern, output, chosen, address=address, say=say, progress=progress
            )
    except KeyboardInterrupt:
        words = "the same command again answers what is missing"
        raise KeyboardInterrupt(words) from None
    _show(report, is_json=is_json)


def _show(report: BatchReport, *, is_json: bool) -> None:
    rate = report.tokens_per_second
    speed = "" if rate is None else f", {rate:.1f} tokens/s"
    say(
        f"{report.answered} answers, {report.new_tokens} tokens{speed}, {report.workers} workers "
        f"({report.lost_workers} lost)"
    )
    click.echo(json.dumps(as_json(report), ensure_ascii=False) if is_json else report.output)
    if report.failed:
        raise PromptError(
            f"{report.failed} of {report.rows} rows failed; see `error` in their answers."
        )
