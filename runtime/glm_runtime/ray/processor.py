"""A processor of Ray Data in the manner of `ray.data.llm`: dataset in, dataset out.

    config = GlmProcessorConfig("artifacts/glm4-int4", concurrency=2)
    processor = build_processor(
        config,
        preprocess=lambda row: {"messages": [{"role": "user", "content": row["question"]}]},
        postprocess=lambda row: {**row, "answer": row["generated_text"]},
    )
    answers = processor(ray.data.read_parquet("questions/"))

What it adds is the stage between the two functions: one pool of actors with continuous batching.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.errors import GenerationError, PromptError, SamplingError
from glm_runtime.prompt_lines import ID_KEYS, KNOWN_KEYS, PromptLine, Result, check_content
from glm_runtime.ray.connection import import_ray
from glm_runtime.ray.folders import read_address
from glm_runtime.ray.rows import make_row
from glm_runtime.ray.worker import AnswerOptions, RowEngine, WorkerSettings
from glm_runtime.text.chat_messages import ChatOptions

ERROR_COLUMN = "__inference_error__"  # as ray.data.llm names it
_DATA = "__data"
_PARAMETERS = "sampling_params"

RowFunction = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class GlmProcessorConfig:
    """Configuration of a processor.

    Attributes:
        model_source: the model folder: a path that is the same on all machines, or an fsspec
            address.
        batch_size: number of rows that Ray Data sends at once.
        concurrency: number of actors; a pair (m, n) lets Ray scale the pool between them.
        should_continue_on_error: whether a row that fails gets a text in the column
            `__inference_error__`; otherwise its error ends the job.
        max_num_seqs: number of rows that an actor answers at the same time.
        max_concurrent_batches: number of batches that an actor works on, so that it never waits for
            the next one.
        num_cpus: number of processors of an actor, and of its threads.
        settings: settings of all rows; a row's own win.
        options: what a chat offers; `None` takes each prompt as raw text.

    Raises:
        SamplingError: a value is outside its range.
    """

    model_source: str
    batch_size: int = 32
    concurrency: int | tuple[int, int] = 1
    should_continue_on_error: bool = False
    max_num_seqs: int = 8
    max_concurrent_batches: int = 2
    num_cpus: int = 1
    settings: GenerationSettings = field(default_factory=GenerationSettings)
    options: ChatOptions | None = field(default_factory=ChatOptions)

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_num_seqs", "max_concurrent_batches", "num_cpus"):
            if getattr(self, name) < 1:
                raise SamplingError(f"{name} is {getattr(self, name)} where 1 or more is expected.")
        low, high = self.pool_sizes
        if not 1 <= low <= high:
            raise SamplingError(
                f"concurrency is {self.concurrency} where a number from 1 on is expected, or a "
                "pair of a smallest and a largest number."
            )

    @property
    def pool_sizes(self) -> tuple[int, int]:
        """The smallest and the largest number of actors."""
        given = self.concurrency
        return (given, given) if isinstance(given, int) else given


class Processor:
    """Maps a Ray Dataset to one with answers; made by `build_processor`."""

    def __init__(
        self,
        config: GlmProcessorConfig,
        functions: tuple[RowFunction | None, RowFunction | None],
        map_settings: tuple[Mapping[str, Any], Mapping[str, Any]],
    ) -> None:
        self.config = config
        self._preprocess, self._postprocess = functions
        self._before, self._after = map_settings
        folder = config.model_source
        if Path(folder).exists():
            folder = str(Path(folder).absolute())  # workers have other working folders
        wanted, _ = read_address(folder)
        options = AnswerOptions(
            config.max_num_seqs, config.num_cpus, config.settings, config.options
        )
        self._settings = WorkerSettings(wanted, float(config.num_cpus), options)

    def __call__(self, dataset: Any) -> Any:
        """Return the dataset with answers; Ray computes it when it is used."""
        data = import_ray("ray.data")
        config, (low, high) = self.config, self.config.pool_sizes
        dataset = dataset.map(_Before(self._preprocess), **self._before)
        dataset = dataset.map_batches(
            AnswerStage,
            fn_constructor_args=(self._settings, config.should_continue_on_error),
            batch_size=config.batch_size,
            compute=data.ActorPoolStrategy(
                min_size=low,
                max_size=high,
                max_tasks_in_flight_per_actor=2 * config.max_concurrent_batches,
                max_concurrent_calls_per_actor=config.max_concurrent_batches,
            ),
            num_cpus=config.num_cpus,
        )
        after = _After(self._postprocess, config.should_continue_on_error)
        return dataset.map(after, **self._after)


def build_processor(
    config: GlmProcessorConfig,
    preprocess: RowFunction | None = None,
    postprocess: RowFunction | None = None,
    preprocess_map_kwargs: Mapping[str, Any] | None = None,
    postprocess_map_kwargs: Mapping[str, Any] | None = None,
) -> Processor:
    """Make a processor.

    Args:
        config: its configuration.
        preprocess: makes of a row what the model reads: `prompt` or `messages`, and settings either
            as keys or in `sampling_params`. What it returns is added to the row.
        postprocess: makes of a row with `generated_text`, `generated_tokens`, `reasoning`,
            `tool_calls` (JSON), `finish_reason`, `num_input_tokens` and `num_generated_tokens` the
            row of the result; rows that failed bypass it.
        preprocess_map_kwargs: arguments of the `Dataset.map` of `preprocess`, such as `num_cpus`.
        postprocess_map_kwargs: the same for `postprocess`.

    Raises:
        FolderError: the model folder is not valid.
        MissingDependencyError: Ray is not installed.
    """
    import_ray("ray.data")
    settings = (preprocess_map_kwargs or {}, postprocess_map_kwargs or {})
    return Processor(config, (preprocess, postprocess), settings)


class AnswerStage:
    """The stage of the actors."""

    def __init__(self, settings: WorkerSettings, should_continue_on_error: bool) -> None:
        """Load the model."""
        self._engine = RowEngine(settings)
        self._should_continue = should_continue_on_error

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Answer the rows of a batch, in the order of common prefixes."""
        rows = [json.loads(text) for text in batch[_DATA]]
        lines = [_make_line(row) for row in rows]
        keys = [
            make_row(line, "", row.get("custom_id", row.get("id")), has_place=False)
            for line, row in zip(lines, rows, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda index: keys[index].order)
        waits: dict[int, asyncio.Future[Result]] = {}
        for index in order:
            waits[index] = self._submit(lines[index], keys[index].row_id)
        for index, row in enumerate(rows):
            result = await waits[index]
            if "error" in result and not self._should_continue:
                raise GenerationError(f"a row cannot be answered: {result['error']}")
            row.update(_as_columns(result))
        yield {_DATA: [json.dumps(row, ensure_ascii=False) for row in rows]}

    def _submit(self, line: PromptLine, row_id: str) -> "asyncio.Future[Result]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def take(result: Result) -> None:
            loop.call_soon_threadsafe(future.set_result, result)

        if line.error is not None:
            take({"error": str(line.error)})
        else:
            self._engine.submit(line, row_id, take)
        return future


class _Before:
    """Applies `preprocess`, and packs the row into one column, whatever its values are."""

    def __init__(self, function: RowFunction | None) -> None:
        self._function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        values = dict(row)
        if self._function is not None:
            values |= self._function(row)
        return {_DATA: json.dumps(values, ensure_ascii=False, default=_to_plain)}


class _After:
    """Unpacks the row and applies `postprocess`."""

    def __init__(self, function: RowFunction | None, has_error_column: bool) -> None:
        self._function = function
        self._has_error_column = has_error_column

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(row[_DATA])
        error = values.pop(ERROR_COLUMN)
        if not error and self._function is not None:
            values = self._function(values)
        return values | ({ERROR_COLUMN: error} if self._has_error_column else {})


def _make_line(row: Mapping[str, Any]) -> PromptLine:
    """Take what the model reads; other columns are carried along."""
    content = {name: row[name] for name in KNOWN_KEYS if row.get(name) is not None}
    content = {name: value for name, value in content.items() if name not in ID_KEYS}
    content |= row.get(_PARAMETERS) or {}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    line = check_content("a row", PromptLine(0, text, content))
    unknown = [name for name in row.get(_PARAMETERS) or {} if name not in KNOWN_KEYS]
    if unknown and line.error is None:
        reason = f"{_PARAMETERS} has {unknown[0]!r}, which is not a setting; leave it out."
        return PromptLine(0, text, content, PromptError(reason))
    return line


def _as_columns(result: Result) -> dict[str, Any]:
    return {
        "generated_text": result.get("text", ""),
        "generated_tokens": result.get("token_ids", []),
        "reasoning": result.get("reasoning", ""),
        "tool_calls": json.dumps(result.get("tool_calls", []), ensure_ascii=False),
        "finish_reason": result.get("finish_reason", ""),
        "num_input_tokens": result.get("prompt_tokens", 0),
        "num_generated_tokens": result.get("new_tokens", 0),
        ERROR_COLUMN: result.get("error", ""),
    }


def _to_plain(value: Any) -> Any:
    """Return numpy's arrays and numbers as Python's, for JSON."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise PromptError(
        f"a row holds {type(value).__name__}, which is not JSON; select other columns, or convert "
        "it in preprocess."
    )
