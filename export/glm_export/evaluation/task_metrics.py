"""Options of lm-eval's tasks, and what a model reached in them. lm-eval is not imported here."""

from dataclasses import dataclass
from pathlib import Path

from glm_export.errors import OptionsError
from glm_export.evaluation.intervals import Units

_NO_FILTER = "none"  # lm-eval's name for answers as they are


@dataclass(frozen=True)
class TaskOptions:
    """The tasks of an evaluation, as lm-eval's options of the same names choose them.

    Attributes:
        names: names or patterns of tasks, groups and tags, or YAML files.
        include_path: folder with YAML files of further tasks.
        limit: number of documents of each task, or a share of them below 1; None is all.
        num_fewshot: number of examples before each question; None is the task's own.
        applies_chat_template: True to write questions with the chat template.
        system_instruction: text before the questions.
    """

    names: tuple[str, ...]
    include_path: Path | None = None
    limit: float | None = None
    num_fewshot: int | None = None
    applies_chat_template: bool = False
    system_instruction: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.names:
            raise OptionsError("there is no task to run; give at least one name with --tasks.")
        if self.limit is not None and not (
            0 < self.limit < 1 or (self.limit >= 1 and self.limit == int(self.limit))
        ):
            raise OptionsError(
                f"limit is {self.limit:g}; choose a whole number of documents, or a share between "
                "0 and 1."
            )
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise OptionsError(f"num fewshot is {self.num_fewshot}; choose 0 or more.")
        if self.include_path is not None and not self.include_path.is_dir():
            raise OptionsError(
                f"the include path {self.include_path} is no folder; give a folder with the YAML "
                "files of tasks."
            )


@dataclass(frozen=True)
class TaskMetric:
    """What a model reached in one metric of a task.

    Attributes:
        task: name of the task or group.
        metric: name of the metric, such as acc.
        answer_filter: lm-eval's filter of the answers.
        value: the figure, as lm-eval computes it.
        is_higher_better: whether a higher value is better; None if the task does not say.
        units: its parts by document; None if lm-eval does not compute it from sums.
    """

    task: str
    metric: str
    answer_filter: str
    value: float
    is_higher_better: bool | None
    units: Units | None

    @property
    def key(self) -> str:
        """The metric as lm-eval's results name it."""
        return f"{self.metric},{self.answer_filter}"

    @property
    def label(self) -> str:
        """A name for tables and plots."""
        shown = self.metric if self.answer_filter == _NO_FILTER else self.key
        return f"{self.task} {shown}"
