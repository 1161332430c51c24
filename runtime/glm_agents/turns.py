"""What the loop does after each answer: run its calls, ask once more, or end.

`Turns` counts; it runs nothing, so that the loop of the terminal and that of the server share it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from glm_agents.limits import AgentLimits
from glm_runtime.text.tool_calls import ToolCall


class Step(Enum):
    """What comes after an answer."""

    END = auto()  # the answer stands
    RUN = auto()  # run the calls, return their results
    REPORT = auto()  # run nothing, ask for one more answer, which stands


@dataclass(frozen=True)
class Plan:
    """What comes after an answer, and why.

    Attributes:
        step: what to do.
        result: with `REPORT`, what to return as the result of every call.
        note: a sentence about a limit that was reached; empty if there was none.
    """

    step: Step
    result: str = ""
    note: str = ""


class Turns:
    """Counts the turns of one question and the seconds of its calls.

    Attributes:
        seconds_left: time that calls may still take.
    """

    def __init__(self, limits: AgentLimits, finishing: Collection[str] = ()) -> None:
        """Start a question.

        Args:
            limits: limits of the question.
            finishing: names of tools that nobody runs: a call says that the model has found enough,
                and its next answer is the report. GLM-Z1-Rumination has `finish`.
        """
        self._limits = limits
        self._finishing = frozenset(finishing)
        self._num_turns = 0
        self._is_last = False
        self.seconds_left = limits.total_seconds

    def plan(self, calls: Sequence[ToolCall]) -> Plan:
        """Return what comes after an answer with these calls."""
        if not calls:
            return Plan(Step.END)
        if self._is_last:
            return Plan(Step.END, note="the calls of the last answer were not run.")
        if any(call.name in self._finishing for call in calls):
            self._is_last = True
            return Plan(Step.REPORT)
        reason = self._find_limit()
        if reason is not None:
            self._is_last = True
            return Plan(Step.REPORT, f"Error: not run, because {reason}; answer now.", f"{reason}.")
        self._num_turns += 1
        return Plan(Step.RUN)

    def spend(self, seconds: float) -> None:
        """Count the time of a call."""
        self.seconds_left = max(0.0, self.seconds_left - seconds)

    def _find_limit(self) -> str | None:
        if self._num_turns >= self._limits.max_turns:
            return f"the limit of {self._limits.max_turns} turns is reached"
        if not self.seconds_left:
            return f"the limit of {self._limits.total_seconds:g} seconds for calls is reached"
        return None
