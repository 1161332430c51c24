"""The loop between a conversation and its tools, for programs without an event loop.

    with open_tools(configuration, limits) as tools:
        agent = Agent(conversation, tools, limits)
        for event in agent.follow(conversation.ask("Look up Micah 6:8.")):
            ...

The tools run in a thread with an event loop; Ctrl-C in the caller's thread cancels a call.
"""

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from anyio.from_thread import BlockingPortal, start_blocking_portal

from glm_agents.configuration import AgentConfiguration
from glm_agents.limits import AgentLimits
from glm_agents.observation import Observation
from glm_agents.offers import ToolOffer
from glm_agents.strategy import choose_strategy
from glm_agents.texts import fit_result
from glm_agents.toolbox import Toolbox, open_toolbox
from glm_agents.turns import Step, Turns
from glm_runtime.answering.settings import Piece
from glm_runtime.conversation import Conversation
from glm_runtime.text.tool_calls import ToolCall

# Says whether the call that was yielded last may run.
Approve = Callable[[ToolOffer], bool]

REFUSED = "Error: the user does not allow this call."
STOPPED = "Error: the user stopped this call."
# Python on Windows reacts to Ctrl-C only between waits.
_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Returned:
    """A call has ended.

    Attributes:
        call: the call.
        observation: its result, as the model reads it.
    """

    call: ToolCall
    observation: Observation


@dataclass(frozen=True)
class LimitReached:
    """The loop ends earlier than the model wants.

    Attributes:
        note: a sentence that says why.
    """

    note: str


Event = Piece | ToolCall | Returned | LimitReached


class Tools:
    """A toolbox whose calls wait; made by `open_tools`."""

    def __init__(self, toolbox: Toolbox, portal: BlockingPortal) -> None:
        self.toolbox = toolbox
        self._portal = portal

    def call(self, call: ToolCall, seconds: float) -> Observation:
        """Run a call; an interruption cancels it."""
        run = partial(self.toolbox.call, call.name, call.arguments, seconds)
        future = self._portal.start_task_soon(run)
        try:
            while not future.done():
                concurrent.futures.wait([future], _WAIT_SECONDS)
            return future.result()
        except BaseException:
            future.cancel()
            raise


@contextlib.contextmanager
def open_tools(configuration: AgentConfiguration, limits: AgentLimits) -> Iterator[Tools]:
    """Start the servers of a configuration; they end with the block.

    Raises:
        AgentError: there is no tool at all, or the sandbox of `python` does not work here.
    """
    with start_blocking_portal() as portal:
        opened = open_toolbox(configuration, limits)
        with portal.wrap_async_context_manager(opened) as toolbox:
            yield Tools(toolbox, portal)


class Agent:
    """Runs the calls of a conversation's answers until an answer has none."""

    def __init__(
        self,
        conversation: Conversation,
        tools: Tools,
        limits: AgentLimits,
        approve: Approve | None = None,
    ) -> None:
        """Make a loop.

        Args:
            conversation: a conversation that declares the tools, as `choose_strategy` says.
            tools: the tools.
            limits: limits of each question.
            approve: asked before each call; `None` allows all.
        """
        self._conversation = conversation
        self._tools = tools
        self._limits = limits
        self._approve = approve
        self._strategy = choose_strategy(conversation.model.chat_template, tools.toolbox.offers)

    def follow(self, pieces: Generator[Piece, None, None]) -> Generator[Event, None, None]:
        """Yield an answer, its calls and their results, and the answers to them.

        A call is yielded before it runs. If the caller stops while calls run, the conversation
        keeps a note as the result of those that have none.

        Raises:
            PromptError: the conversation is too long.
            GenerationError: ONNX Runtime failed.
        """
        turns = Turns(self._limits, self._strategy.finishing)
        while True:
            calls: tuple[ToolCall, ...] = ()
            with contextlib.closing(pieces):
                for piece in pieces:
                    calls = piece.tool_calls
                    yield piece
            plan = turns.plan(calls)
            if plan.note:
                yield LimitReached(plan.note)
            if plan.step is Step.END:
                return
            results = [plan.result] * len(calls)
            if plan.step is Step.RUN:
                results = yield from self._run_all(calls, turns)
            pieces = self._conversation.return_results(results)

    def _run_all(
        self, calls: Sequence[ToolCall], turns: Turns
    ) -> Generator[Event, None, list[str]]:
        results: list[str] = []
        try:
            for call in calls:
                yield call
                observation = self._run(call, turns)
                results.append(observation.text)
                yield Returned(call, observation)
        except BaseException:
            self._conversation.add_results(results + [STOPPED] * (len(calls) - len(results)))
            raise
        return results

    def _run(self, call: ToolCall, turns: Turns) -> Observation:
        offer = self._tools.toolbox.find(call.name)
        if offer is not None and self._approve is not None and not self._approve(offer):
            return Observation(REFUSED, is_error=True)
        begin = time.monotonic()
        observation = self._tools.call(call, turns.seconds_left)
        turns.spend(time.monotonic() - begin)
        return Observation(
            fit_result(observation.text, self._conversation.model), observation.is_error
        )
