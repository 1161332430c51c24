"""The turns of one response: answers, calls of the operator's tools, and answers to their results.

Functions of the client end the response, since the client runs them; so do calls that need an
approval.
"""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Sequence

from glm_agents.strategy import choose_strategy
from glm_agents.texts import fit_result
from glm_agents.turns import Step, Turns
from glm_runtime.text.tool_calls import ToolCall
from glm_server.openai.mcp_schema import OutputMcpCall
from glm_server.openai.mcp_tools import McpTools, choose_tools, run_approved
from glm_server.openai.responses_events import Event, ResponseWriter, start_reply
from glm_server.openai.responses_request import read_question
from glm_server.openai.responses_schema import ResponseRequest
from glm_server.questions import Question
from glm_server.sections import Change, Section
from glm_server.services import Services
from glm_server.turns import Turn, begin_turn

_LIMIT = "max_new_tokens"


class ResponseLoop:
    """One response; made by `begin_response`. `close` must be called in the end.

    Attributes:
        writer: the response so far.
    """

    def __init__(self, services: Services, question: Question, tools: McpTools, turn: Turn) -> None:
        """Go on from a turn that has begun."""
        self._services = services
        self._question = question
        self._tools = tools
        self._turn = turn
        template = turn.loaded.model.chat_template
        self._finishing = choose_strategy(template, tools.offers).finishing if tools.offers else ()
        self._turns = Turns(services.settings.agent_limits, self._finishing)
        self._begun: list[OutputMcpCall] = []
        self.writer: ResponseWriter

    def start_writer(self, body: ResponseRequest, approved: Sequence[OutputMcpCall]) -> None:
        """Make the writer of the response, and keep the calls that ran before the first turn."""
        model = self._turn.loaded
        reply = start_reply(body, model.name)
        self.writer = ResponseWriter(
            reply, model.model.tokenizer, self._tools, hidden=self._finishing
        )
        self._begun.extend(approved)

    async def close(self) -> None:
        """Cancel the answer if it still runs, and give the model back."""
        await self._turn.close()

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of the response.

        Raises:
            ApiError: an answer failed.
        """
        for event in self.writer.begin(self._begun):
            yield event
        while True:
            async for change in self._turn.events():
                if isinstance(change, Change):
                    for event in self.writer.add(change, is_cut=self._is_cut):
                        yield event
            self.writer.count(self._turn)
            results: list[str] = []
            async for step in self._run_calls(results):
                yield step
            if not results:
                break
            await self._continue(results)
            if self._is_used_up:
                break
        for event in self.writer.finish(is_cut=self._is_cut or self._is_used_up):
            yield event

    @property
    def _is_cut(self) -> bool:
        return self._turn.reader.finish_reason == "length"

    @property
    def _is_used_up(self) -> bool:
        """Whether no token of the response's limit is left for another answer."""
        limit = self._question.settings.get(_LIMIT)
        return limit is not None and limit < 1

    @property
    def _calls(self) -> list[Section]:
        """The calls of the last answer, if it is complete."""
        reader = self._turn.reader
        if reader.finish_reason != "tool_calls":
            return []
        return [section for section in reader.sections if section.kind == "call"]

    async def _run_calls(self, results: list[str]) -> AsyncIterator[Event]:
        """Run the calls that may run; fill `results` if the model is to go on with all of them."""
        calls = self._calls
        mine = [call for call in calls if self._is_mine(call)]
        if not mine:
            return
        plan = self._turns.plan([ToolCall(call.name, call.text, call.id) for call in mine])
        found: dict[int, str] = {}
        for call in mine:
            offer = self._tools.find(call.name)
            if offer is None:
                found[call.index] = plan.result
                continue
            if self._tools.needs_approval(offer):
                continue
            text, is_error = plan.result or "Error: not run, because the loop has ended.", True
            if plan.step is Step.RUN:
                begin = time.monotonic()
                seconds = self._turns.seconds_left
                model = self._turn.loaded.model
                text, is_error = await self._tools.run(call.name, call.text, seconds)
                text = await asyncio.to_thread(fit_result, text, model)
                self._turns.spend(time.monotonic() - begin)
            found[call.index] = text
            for event in self.writer.complete_call(call, text, is_error=is_error):
                yield event
        if plan.step is not Step.END and len(found) == len(calls):
            results += [found[call.index] for call in calls]

    def _is_mine(self, call: Section) -> bool:
        return call.name in self._finishing or self._tools.find(call.name) is not None

    async def _continue(self, results: Sequence[str]) -> None:
        """Begin the answer to results."""
        reader, question = self._turn.reader, self._question
        settings = dict(question.settings)
        if settings.get(_LIMIT) is not None:
            settings[_LIMIT] -= reader.num_tokens
        self._question = dataclasses.replace(
            question,
            messages=[*question.messages, *_describe(reader.sections, self._calls, results)],
            settings=settings,
            must_call=False,
        )
        await self._turn.close()
        self.writer.end_turn()
        if not self._is_used_up:
            self._turn = await begin_turn(self._services, self._turn.loaded.name, self._question)


async def begin_response(services: Services, body: ResponseRequest) -> ResponseLoop:
    """Run the calls that the client has approved, and begin the first answer.

    Raises:
        ApiError: the body is refused, or a model cannot answer.
    """
    tools = await choose_tools(services, body)
    approved: list[OutputMcpCall] = []
    if not isinstance(body.input, str):
        items, approved = await run_approved(services, tools, body.input)
        body = body.model_copy(update={"input": items})
    question = read_question(body, tools)
    turn = await begin_turn(services, body.model, question)
    loop = ResponseLoop(services, question, tools, turn)
    loop.start_writer(body, approved)
    return loop


def _describe(
    sections: Sequence[Section], calls: Sequence[Section], results: Sequence[str]
) -> list[dict[str, object]]:
    """Return an answer that called tools, and the results, as messages."""
    texts = {
        kind: "".join(one.text for one in sections if one.kind == kind)
        for kind in ("text", "reasoning")
    }
    described = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.text},
        }
        for call in calls
    ]
    answer: dict[str, object] = {
        "role": "assistant",
        "content": texts["text"],
        "tool_calls": described,
    }
    if texts["reasoning"]:
        answer["reasoning_content"] = texts["reasoning"]
    returned: list[dict[str, object]] = [
        {"role": "tool", "tool_call_id": call.id, "content": result}
        for call, result in zip(calls, results, strict=True)
    ]
    return [answer, *returned]
