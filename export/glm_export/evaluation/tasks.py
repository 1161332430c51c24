"""Runs lm-eval's tasks over the original and the folders.

lm-eval loads the tasks, makes the requests and computes the metrics; the model `glm-onnx` of
`glm_lm_eval` answers them, with the folder's graph or with the original's layers. Only this file
imports lm-eval.
"""

import difflib
import functools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api import metrics
from lm_eval.api.group import Group
from lm_eval.tasks import TaskManager

import glm_runtime
from glm_export.errors import ExportError, OptionsError
from glm_export.evaluation.inputs import Candidate
from glm_export.evaluation.intervals import Units
from glm_export.evaluation.original import OriginalModel
from glm_export.evaluation.task_metrics import TaskMetric, TaskOptions
from glm_export.model.layer_stream import LayerStream
from glm_lm_eval.model import GlmOnnx
from glm_lm_eval.options import HarnessOptions
from glm_runtime.errors import GlmRuntimeError, first_line
from glm_runtime.progress import Progress
from glm_runtime.text.chat_template import read_chat_template

_KINDS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")
_SUMS = (metrics.mean, metrics.perplexity, metrics.weighted_perplexity, metrics.bits_per_byte)
_ROWS = 8  # answers that are written at the same time


@dataclass(frozen=True)
class _Shown:
    """A row of figures: a task, or a group that lm-eval summarizes."""

    name: str
    leaves: tuple[str, ...]
    group: Any = None


class OpenTasks:
    """Tasks that are loaded and checked.

    Args:
        options: which tasks, and how.

    Raises:
        OptionsError: a task is unknown, cannot be loaded, or needs what we do not have.
    """

    def __init__(self, options: TaskOptions) -> None:
        self._options = options
        with _quiet_harness():
            self._manager = _open_manager(options.include_path)
            self._names = _find_names(self._manager, options.names)
            self._tasks: dict[str, Any] = {}
            self._shown = [row for name in self._names for row in self._load(name)]

    def run_original(
        self, stream: LayerStream, candidate: Candidate, progress: Progress
    ) -> tuple[TaskMetric, ...]:
        """Run the tasks over the original, with the tokenizer of a folder."""
        original = OriginalModel(stream, candidate.folder, candidate.manifest, progress)
        with closing(original):
            return self._run(GlmOnnx(self._make_options(candidate.folder), original, _show_nothing))

    def run_folder(self, candidate: Candidate, progress: Progress) -> tuple[TaskMetric, ...]:
        """Run the tasks over a folder, with ONNX Runtime on the CPU."""

        def show(stage: str, done: int, total: int) -> None:
            progress(f"{candidate.name}: {stage}", done, total)

        with glm_runtime.load(candidate.folder, "cpu") as loaded:
            return self._run(GlmOnnx(self._make_options(candidate.folder), loaded, show))

    def check_templates(self, candidates: Sequence[Candidate]) -> None:
        """Refuse folders without a chat template where it is asked for, and different ones.

        Raises:
            OptionsError: a template is missing, or two folders have different ones.
        """
        if not self._options.applies_chat_template:
            return
        first = read_chat_template(candidates[0].folder)
        for candidate in candidates:
            template = read_chat_template(candidate.folder)
            if template is None:
                raise OptionsError(
                    f"{candidate.folder} has no chat template; leave --apply-chat-template out."
                )
            if first is not None and template.source != first.source:
                raise OptionsError(
                    f"{candidate.folder} has another chat template than {candidates[0].folder}, "
                    "so their questions would differ; evaluate them one by one."
                )

    def _make_options(self, folder: Path) -> HarnessOptions:
        # A chat template writes the special tokens at the beginning itself.
        adds_tokens = False if self._options.applies_chat_template else None
        return HarnessOptions(folder, "cpu", batch_size=_ROWS, add_bos_token=adds_tokens)

    def _load(self, name: str) -> Iterator[_Shown]:
        """Load a task, group or tag with its documents, and yield its rows."""
        try:
            loaded = self._manager.load([name])
            for task in loaded["tasks"].values():
                self._check(task)
        except ExportError:
            raise
        except Exception as error:  # tasks run code of their own
            raise OptionsError(
                f"the task {name} cannot be loaded ({first_line(error)}); {_advise(error)}."
            ) from error
        for leaf in loaded["tasks"]:
            if leaf in self._tasks:  # lm-eval refuses it, but after the first model is loaded
                raise OptionsError(
                    f"the task {leaf} is named twice, the second time as {name}; leave one of its "
                    "names out."
                )
        self._tasks |= loaded["tasks"]
        group = loaded.get("groups", {}).get(name)
        if isinstance(group, Group) and group.has_aggregation:
            yield _Shown(name, tuple(loaded["tasks"]), group)
            return
        for leaf in loaded["tasks"]:
            yield _Shown(leaf, (leaf,))

    def _check(self, task: Any) -> None:
        """Refuse a task that lm-eval would refuse later; make the requests of one document."""
        name = task.task_name
        if getattr(task, "UNSAFE_CODE", False):
            raise OptionsError(
                f"the task {name} runs code that models write; run it by `python -m glm_lm_eval` "
                "with --confirm_run_unsafe_code on a machine that may break."
            )
        if getattr(task, "MULTIMODAL", False) or task.OUTPUT_TYPE not in _KINDS:
            raise OptionsError(
                f"the task {name} needs images or requests of the kind {task.OUTPUT_TYPE}; choose "
                "a task of text."
            )
        fewshot = self._options.num_fewshot
        if fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=fewshot)
        task.set_fewshot_seed(seed=0)
        task.build_all_requests(limit=1, system_instruction=self._options.system_instruction)

    def _run(self, model: GlmOnnx) -> tuple[TaskMetric, ...]:
        options = self._options
        try:
            with _quiet_harness():
                results = simple_evaluate(
                    model,
                    tasks=list(self._names),
                    task_manager=self._manager,
                    limit=options.limit,
                    num_fewshot=options.num_fewshot,
                    apply_chat_template=options.applies_chat_template,
                    system_instruction=options.system_instruction,
                    bootstrap_iters=0,
                )
        except (ExportError, GlmRuntimeError, MemoryError):
            raise
        except Exception as error:  # tasks run code of their own
            raise OptionsError(
                f"lm-eval failed on the tasks ({first_line(error)}); run them by `python -m "
                "glm_lm_eval` to see where."
            ) from error
        return tuple(metric for row in self._shown for metric in self._read(row, results))

    def _read(self, row: _Shown, results: Mapping[str, Any]) -> Iterator[TaskMetric]:
        """Yield the figures of a row of lm-eval's results."""
        higher = results["higher_is_better"].get(row.name, {})
        for key, value in results["results"][row.name].items():
            metric, comma, answer_filter = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            units = self._collect(row, metric, answer_filter, results["samples"])
            yield TaskMetric(
                row.name, metric, answer_filter, float(value), higher.get(metric), units
            )

    def _collect(
        self, row: _Shown, metric: str, answer_filter: str, samples: Mapping[str, Any]
    ) -> Units | None:
        """Collect the parts of a figure from all documents of a row."""
        parts: list[Units] = []
        for leaf in row.leaves:
            items = [
                sample[metric]
                for sample in samples[leaf]
                if sample["filter"] == answer_filter and metric in sample
            ]
            units = _split_figure(self._tasks[leaf].aggregation().get(metric), items)
            if units is None or (row.group is not None and units.is_logarithm):
                return None  # the mean of perplexities is not made of sums
            parts.append(units)
        if row.group is not None and not _is_weighted(row.group, metric):
            # The mean of the tasks' means, as one mean over all documents.
            total = sum(len(part.sizes) for part in parts)
            shares = [total / (len(parts) * len(part.sizes)) for part in parts]
            parts = [
                Units(part.amounts * share, part.sizes)
                for part, share in zip(parts, shares, strict=True)
            ]
        return Units(
            np.concatenate([part.amounts for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            parts[0].is_logarithm,
        )


def _open_manager(include_path: Path | None) -> Any:
    try:
        return TaskManager(include_path=None if include_path is None else str(include_path))
    except Exception as error:  # the files are the user's
        raise OptionsError(
            f"the tasks of {include_path} cannot be read ({first_line(error)}); correct them."
        ) from error


def _find_names(manager: Any, names: Sequence[str]) -> list[str]:
    """Return the names that patterns stand for, each once.

    Raises:
        OptionsError: a name is unknown.
    """
    found: dict[str, None] = {}
    for name in names:
        is_file = name.endswith((".yaml", ".yml")) and Path(name).is_file()
        matches = [name] if is_file else manager.match_tasks([name])
        if not matches:
            similar = difflib.get_close_matches(name, manager.all_tasks, 1)
            advice = f"write {similar[0]}" if similar else "`lm-eval ls tasks` lists all names"
            raise OptionsError(
                f"lm-eval has no task {name!r}; {advice}, or name the folder of your own tasks "
                "with --include-path."
            )
        found |= dict.fromkeys(matches)
    return list(found)


def _advise(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return (
            "its documents are on the Hugging Face Hub, so connect to it, or load them into the "
            "cache of `datasets` before"
        )
    return "correct the task or its data files, or install what it needs"


def _split_figure(aggregation: Any, items: Sequence[Any]) -> Units | None:
    """Split a figure into its parts by document; None if it is not made of sums."""
    if not items or aggregation not in _SUMS:
        return None
    values = np.asarray(items, np.float64)
    if aggregation is metrics.mean:
        return Units(values, np.ones(len(items)))
    if aggregation is metrics.perplexity:
        return Units(-values, np.ones(len(items)), is_logarithm=True)
    amounts, sizes = values.T
    if aggregation is metrics.weighted_perplexity:
        return Units(-amounts, sizes, is_logarithm=True)
    return Units(-amounts / math.log(2), sizes)


def _is_weighted(group: Any, metric: str) -> bool:
    """Return whether a group's figure counts every document equally."""
    return any(one.metric == metric and one.weight_by_size for one in group.aggregate_metric_list)


@contextmanager
def _quiet_harness() -> Iterator[None]:
    """Hide lm-eval's own lines and bars, since glm-eval shows its own progress."""
    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, lm_eval.api.task.tqdm
    logger.setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = functools.partial(bar, disable=True)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bar
        datasets.enable_progress_bars()


def _show_nothing(_stage: str, _done: int, _total: int) -> None:
    """Show nothing: the original reports its layers itself."""
