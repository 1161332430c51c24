"""A job: read and sort the rows, answer them by a pool of workers, write shards.

`glm-run batch` calls `run_batch`; so can a program, with any Ray Dataset. Read `plan.py`, `pool.py`
and `output.py` for the three steps.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from glm_runtime.errors import RayError, SamplingError
from glm_runtime.folder.manifest import Manifest
from glm_runtime.progress import Progress, ignore_progress
from glm_runtime.ray.connection import connect
from glm_runtime.ray.folders import FolderAddress, read_address
from glm_runtime.ray.output import FORMATS, Output
from glm_runtime.ray.plan import Plan, make_plan
from glm_runtime.ray.pool import Pool, PoolReport
from glm_runtime.ray.reading import (
    InputFiles,
    find_files,
    prepare_table,
    read_few,
    read_rows,
)
from glm_runtime.ray.row_queue import RowQueue
from glm_runtime.ray.rows import Columns
from glm_runtime.ray.storage import Storage
from glm_runtime.ray.worker import Answered, AnswerOptions, WorkerSettings

_FORMAT_VERSION = 1
_INT8_LEVEL = 4  # accuracy_level of MatMulNBits with int8 activations


@dataclass(frozen=True)
class BatchOptions(AnswerOptions):
    """Options of a job, beside those of `AnswerOptions`.

    Attributes:
        workers: number of workers, each with a loaded model; `None` takes one on every machine of
            the cluster.
        shard_rows: number of rows of an output file.
        kind: format of the output files, `jsonl` or `parquet`.
        columns: columns of ids and prompts of the input.

    Raises:
        SamplingError: a value is outside its range.
    """

    workers: int | None = None
    shard_rows: int = 1000
    kind: str = "jsonl"
    columns: Columns = field(default_factory=Columns)

    def __post_init__(self) -> None:
        for name in ("workers", "rows", "threads", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SamplingError(f"{name} is {value} where 1 or more is expected.")
        if self.kind not in FORMATS:
            raise SamplingError(f"kind is {self.kind!r} where one of {FORMATS} is expected.")


@dataclass(frozen=True)
class BatchReport:
    """What a job has done.

    Attributes:
        output: path or address of the output.
        rows: number of rows of the input.
        answered: number of rows that this run answered; others had answers before.
        failed: number of rows whose answer is an error, in all.
        new_tokens: number of tokens that this run generated.
        seconds: time from the first row that was sent to the last answer.
        tokens_per_second: throughput of this run; `None` if it generated nothing.
        workers: number of workers that loaded the model.
        lost_workers: number of workers that ended before the job.
        driver_seconds: time that the driver itself worked while rows were answered.
        total_seconds: time of the whole run.
    """

    output: str
    rows: int
    answered: int
    failed: int
    new_tokens: int
    seconds: float
    tokens_per_second: float | None
    workers: int
    lost_workers: int
    driver_seconds: float
    total_seconds: float


def run_batch(  # noqa: PLR0913  # most arguments are optional keywords
    folder: str,
    input_rows: Any,
    output: str,
    options: BatchOptions | None = None,
    *,
    address: str | None = None,
    say: Callable[[str], None] = lambda _line: None,
    progress: Progress = ignore_progress,
) -> BatchReport:
    """Answer all rows of an input; a run after one that was killed completes its output.

    Args:
        folder: the model folder: a path that is the same on all machines, or an fsspec address.
        input_rows: path, pattern or fsspec address of files, or a Ray Dataset.
        output: folder or fsspec address for the answers.
        options: options of the job.
        address: `HOST:PORT` of a Ray cluster, or `auto`; `None` starts Ray on this machine.
        say: prints a line for people.
        progress: called with (stage, done, total).

    Raises:
        MissingDependencyError: Ray is not installed.
        RayError: the cluster cannot be reached, or no worker can work.
        FolderError: the model folder is not valid.
        PromptError: the input cannot be read, ids are repeated, or the output is another job's.
        OSError: the output cannot be written.
    """
    options, begin = options or BatchOptions(), time.perf_counter()
    wanted, manifest = read_address(folder)
    describe_rounding(manifest, say)
    files = find_files(input_rows) if isinstance(input_rows, str) else None
    storage = Storage(output)
    with storage.lock(), ExitStack() as stack:
        # A few rows are read before Ray starts, so that what is wrong with them is said at once.
        rows = None if files is None else read_few(files, options.columns)
        if rows is None:
            _silence_data(stack.enter_context(connect(address)))
            rows = _read(input_rows, files, options.columns, say)
        plan = stack.enter_context(closing(make_plan(rows, options.shard_rows, progress)))
        job = _describe_job(plan, wanted, options)
        results = Output(storage, plan, job, options.kind)
        report = PoolReport()
        if results.num_done < len(plan):
            ray = stack.enter_context(connect(address))
            report = _answer(ray, results, plan, _Frame(wanted, options, say, progress))
        results.finish({"rows": len(plan), "failed": results.num_failed})
    total = time.perf_counter() - begin
    return _describe(report, results, plan, output, total)


def _read(
    given: Any, files: InputFiles | None, columns: Columns, say: Callable[[str], None]
) -> Any:
    if files is None:
        return prepare_table(given, columns, say)
    return read_rows(files, columns, say)


@dataclass(frozen=True)
class _Frame:
    """What a job is done with."""

    wanted: FolderAddress
    options: BatchOptions
    say: Callable[[str], None]
    progress: Progress


def _answer(ray: Any, results: Output, plan: Plan, frame: _Frame) -> PoolReport:
    """Answer the rows that have no answer."""
    say, options = frame.say, frame.options
    for name in results.damaged:
        say(f"{name} is damaged; its rows are answered again")
    if results.num_done:
        say(f"{results.num_done} of {len(plan)} rows are answered already")
    missing = list(results.list_missing())
    settings, num_workers = _size_workers(ray, frame.wanted, options)
    pool = Pool(ray, settings, min(num_workers, len(missing)), say)
    frame.progress("answering", results.num_done, len(plan))

    def take(answered: list[Answered]) -> None:
        results.add(answered)
        frame.progress("answering", results.num_done, len(plan))

    try:
        pool.run(plan, RowQueue(missing, options.rows), take)
        results.close()
    except BaseException:
        with suppress(OSError):
            results.close()
        raise
    return pool.report


def _size_workers(
    ray: Any, wanted: FolderAddress, options: BatchOptions
) -> tuple[WorkerSettings, int]:
    """Return what each worker loads, with its share of processors, and the number of workers."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    processors = [node["Resources"].get("CPU", 0.0) for node in nodes]
    useful = [count for count in processors if count > 0]
    if not useful and options.threads is None:
        raise RayError(
            "no machine of the cluster offers processors to Ray; add one, or give --threads and "
            "--workers if machines are added on demand."
        )
    num_workers = options.workers or max(1, len(useful))
    share = float(options.threads or 1)
    if options.threads is None:
        per_machine = -(-num_workers // len(useful))
        smallest = min(useful)
        share = float(smallest // per_machine) or smallest / per_machine
    return WorkerSettings(wanted, share, options), num_workers


def _describe_job(plan: Plan, wanted: FolderAddress, options: BatchOptions) -> dict[str, object]:
    """Return what all answers depend on; two runs with equal jobs complete each other."""
    return {
        "format_version": _FORMAT_VERSION,
        "rows": len(plan),
        "input": plan.fingerprint,
        "model": wanted.digest,
        "settings": repr((options.settings, options.options, options.rope_scaling)),
        "shard_rows": plan.shard_rows,
        "kind": options.kind,
    }


def describe_rounding(manifest: Manifest, say: Callable[[str], None]) -> None:
    """Say that answers of a folder with int8 activations depend on the batch, a little."""
    if manifest.recipe.accuracy_level == _INT8_LEVEL:
        say(
            "this folder rounds activations to int8 (accuracy level 4): a row's tokens can differ "
            "between runs where two tokens are nearly as likely; a folder of --accuracy-level 0 "
            "gives equal answers"
        )


def _silence_data(ray: Any) -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _describe(
    report: PoolReport, results: Output, plan: Plan, output: str, total: float
) -> BatchReport:
    rate = report.num_tokens / report.seconds if report.seconds > 0 else None
    return BatchReport(
        output,
        len(plan),
        report.num_answered,
        results.num_failed,
        report.num_tokens,
        report.seconds,
        rate,
        report.num_started,
        report.num_lost,
        report.driver_seconds,
        total,
    )


def as_json(report: BatchReport) -> Mapping[str, object]:
    """Return a report for JSON."""
    return asdict(report)
