"""The sections of an answer to the items and events of a response.

Source of the events: openai-python, `types/responses/response_stream_event.py`.
"""

import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glm_runtime.text.tokenizer import Tokenizer
from glm_server.errors import ApiError
from glm_server.ids import make_id
from glm_server.openai.mcp_schema import (
    McpError,
    OutputApprovalRequest,
    OutputMcpCall,
    OutputToolList,
)
from glm_server.openai.mcp_tools import McpTools, complete
from glm_server.openai.responses_reply import (
    ErrorCode,
    IncompleteDetails,
    InputTokensDetails,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputReasoningText,
    OutputText,
    OutputTokensDetails,
    ResponseError,
    ResponseReply,
    ResponseUsage,
)
from glm_server.openai.responses_schema import (
    ItemStatus,
    PlainFormat,
    ReasoningSettings,
    ResponseRequest,
    TextSettings,
)
from glm_server.openai.token_names import name_tokens
from glm_server.schema import Reply
from glm_server.sections import Change, Section
from glm_server.turns import Turn

Event = dict[str, Any]


def start_reply(body: ResponseRequest, model: str) -> ResponseReply:
    """Return the response to a body before anything has arrived."""
    return ResponseReply(
        id=f"resp_{uuid.uuid4().hex}",
        created_at=int(time.time()),
        model=model,
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_logprobs=body.top_logprobs or 0,
        text=body.text or TextSettings(format=PlainFormat(type="text")),
        reasoning=body.reasoning or ReasoningSettings(),
        tools=body.tools or [],
        tool_choice=body.tool_choice or "auto",
        parallel_tool_calls=body.parallel_tool_calls is not False,
        metadata=body.metadata or {},
        user=body.user,
        safety_identifier=body.safety_identifier,
        prompt_cache_key=body.prompt_cache_key,
    )


class ResponseWriter:
    """Fills a response, and describes each step as an event.

    Attributes:
        reply: the response so far.
    """

    def __init__(
        self,
        reply: ResponseReply,
        tokenizer: Tokenizer,
        tools: McpTools,
        hidden: Collection[str] = (),
    ) -> None:
        """Start with an empty response.

        Args:
            reply: the response; its items are added in order, over all turns.
            tokenizer: names the tokens of log-probabilities.
            tools: the operator's tools that the model may call.
            hidden: names of tools whose calls are no items.
        """
        self.reply = reply
        self._tokenizer = tokenizer
        self._tools = tools
        self._hidden = hidden
        self._num_events = 0
        self._usage = Counts()
        self._places: dict[int, int] = {}  # of the items of the turn's calls, by their sections

    def begin(self, approved: Sequence[OutputMcpCall] = ()) -> Iterator[Event]:
        """Yield the events before the first answer.

        Args:
            approved: calls that ran before it.
        """
        yield self._describe("created")
        yield self._describe("in_progress")
        for tools in self._tools.list_servers():
            yield from self._add_tool_list(tools)
        for call in approved:
            arguments, result = call.arguments, call.model_copy()
            call.arguments, call.status, call.output, call.error = "", "in_progress", None, None
            yield from self._add_call(call)
            call.arguments = arguments
            yield self._number_item("response.mcp_call_arguments.delta", delta=arguments)
            yield self._number_item("response.mcp_call_arguments.done", arguments=arguments)
            call.status, call.output, call.error = result.status, result.output, result.error
            yield from self._finish_call(len(self.reply.output) - 1)

    def add(self, change: Change, *, is_cut: bool) -> Iterator[Event]:
        """Take a change of a section; yield its events.

        Args:
            change: the change.
            is_cut: whether a limit has ended the answer.
        """
        if change.section.kind == "call" and change.section.name in self._hidden:
            return
        if change.step == "open":
            yield from self._open(change.section)
        elif change.step == "close":
            yield from self._close("incomplete" if is_cut else "completed")
        else:
            yield from self._grow(change)

    def count(self, turn: Turn) -> None:
        """Add the tokens of an answer that has ended to the response's."""
        self._usage.add(turn)

    def complete_call(self, call: Section, text: str, *, is_error: bool) -> Iterator[Event]:
        """Take the result of a call of the last answer; yield its events."""
        place = self._places[call.index]
        item = self.reply.output[place]
        assert isinstance(item, OutputMcpCall)
        complete(item, text, is_error=is_error)
        yield from self._finish_call(place)

    def end_turn(self) -> None:
        """Forget the calls of an answer, before the next answer."""
        self._places.clear()

    def finish(self, *, is_cut: bool) -> Iterator[Event]:
        """Take the end of the last answer; yield the last events.

        Args:
            is_cut: whether a limit has ended it.
        """
        reply = self.reply
        for place, item in enumerate(reply.output):
            if isinstance(item, OutputMcpCall) and item.status == "in_progress":
                item.status, item.error = "incomplete", McpError(content="The call is incomplete.")
                yield from self._finish_call(place)
        silent = ("reasoning", "mcp_list_tools")
        if not is_cut and all(item.type in silent for item in reply.output):
            yield from self._open(Section(0, "text"))
            yield from self._close("completed")
        reply.usage = self._usage.describe()
        reply.completed_at = None if is_cut else int(time.time())
        reply.incomplete_details = IncompleteDetails() if is_cut else None
        reply.status = "incomplete" if is_cut else "completed"
        yield self._describe(reply.status)

    def fail(self, error: ApiError) -> Iterator[Event]:
        """Yield the last event of an answer that failed."""
        code: ErrorCode = "invalid_prompt" if error.status < 500 else "server_error"
        self.reply.status = "failed"
        self.reply.error = ResponseError(code=code, message=error.message)
        yield self._describe("failed")

    def _open(self, section: Section) -> Iterator[Event]:
        if section.kind == "call":
            yield from self._open_call(section)
            return
        item: OutputItem
        if section.kind == "reasoning":
            item = OutputReasoning(id=make_id("rs"))
        else:
            item = OutputMessage(id=make_id("msg"))
        self.reply.output.append(item)
        yield self._number("response.output_item.added", item=_dump(item))
        part = OutputReasoningText() if isinstance(item, OutputReasoning) else OutputText()
        item.content.append(part)  # type: ignore[arg-type]  # the part belongs to the item
        yield self._number_part("response.content_part.added", part=_dump(part))

    def _open_call(self, section: Section) -> Iterator[Event]:
        offer = self._tools.find(section.name)
        self._places[section.index] = len(self.reply.output)
        if offer is None:
            item = OutputCall(id=make_id("fc"), call_id=section.id, name=section.name)
            self.reply.output.append(item)
            yield self._number("response.output_item.added", item=_dump(item))
        elif self._tools.needs_approval(offer):
            request = OutputApprovalRequest(
                id=make_id("mcpr"), server_label=offer.server, name=offer.tool
            )
            self.reply.output.append(request)  # added with its arguments, at its end
        else:
            call = OutputMcpCall(id=make_id("mcp"), server_label=offer.server, name=offer.tool)
            yield from self._add_call(call)

    def _add_tool_list(self, tools: OutputToolList) -> Iterator[Event]:
        self.reply.output.append(tools)
        yield self._number("response.output_item.added", item={**_dump(tools), "tools": []})
        yield self._number_item("response.mcp_list_tools.in_progress")
        yield self._number_item("response.mcp_list_tools.completed")
        yield self._number("response.output_item.done", item=_dump(tools))

    def _add_call(self, call: OutputMcpCall) -> Iterator[Event]:
        self.reply.output.append(call)
        yield self._number("response.output_item.added", item=_dump(call))
        yield self._number_item("response.mcp_call.in_progress")

    def _finish_call(self, place: int) -> Iterator[Event]:
        call = self.reply.output[place]
        assert isinstance(call, OutputMcpCall)
        step = "failed" if call.error is not None else "completed"
        kind = f"response.mcp_call.{step}"
        yield self._write(kind, output_index=place, item_id=call.id)
        yield self._write("response.output_item.done", output_index=place, item=_dump(call))

    def _grow(self, change: Change) -> Iterator[Event]:
        item = self.reply.output[-1]
        if isinstance(item, OutputMessage):
            named = [name_tokens(self._tokenizer, one.id, one.logprobs) for one in change.tokens]
            item.content[0].text += change.text
            item.content[0].logprobs += named
            yield self._number_part(
                "response.output_text.delta", delta=change.text, logprobs=list(map(_dump, named))
            )
        elif isinstance(item, OutputReasoning):
            item.content[0].text += change.text
            yield self._number_part("response.reasoning_text.delta", delta=change.text)
        elif not isinstance(item, OutputToolList):
            item.arguments += change.text
            if not isinstance(item, OutputApprovalRequest):
                kind = f"response.{item.type}_arguments.delta"
                yield self._number_item(kind, delta=change.text)

    def _close(self, status: ItemStatus) -> Iterator[Event]:
        item = self.reply.output[-1]
        if isinstance(item, OutputMcpCall):
            kind = "response.mcp_call_arguments.done"
            yield self._number_item(kind, arguments=item.arguments)
            return  # it is done when it has a result
        if isinstance(item, OutputApprovalRequest):
            yield self._number("response.output_item.added", item=_dump(item))
        elif isinstance(item, OutputCall):
            item.status = status
            yield self._number_item(
                "response.function_call_arguments.done", name=item.name, arguments=item.arguments
            )
        elif isinstance(item, OutputMessage | OutputReasoning):
            item.status = status
            part = _dump(item.content[0])
            kind = "output_text" if isinstance(item, OutputMessage) else "reasoning_text"
            said = {name: part[name] for name in ("text", "logprobs") if name in part}
            yield self._number_part(f"response.{kind}.done", **said)
            yield self._number_part("response.content_part.done", part=part)
        yield self._number("response.output_item.done", item=_dump(item))

    def _describe(self, step: str) -> Event:
        """Return an event with the whole response."""
        return self._write(f"response.{step}", response=_dump(self.reply))

    def _number_part(self, kind: str, **fields: Any) -> Event:
        """Return an event of the only part of the last item."""
        return self._number_item(kind, content_index=0, **fields)

    def _number_item(self, kind: str, **fields: Any) -> Event:
        """Return an event of what is inside of the last item."""
        return self._number(kind, item_id=self.reply.output[-1].id, **fields)

    def _number(self, kind: str, **fields: Any) -> Event:
        """Return an event of the last item."""
        return self._write(kind, output_index=len(self.reply.output) - 1, **fields)

    def _write(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return event


@dataclass
class Counts:
    """Numbers of tokens over the turns of a response.

    Attributes:
        prompt: tokens of all prompts; each turn reads the ones before it again.
        cached: how many of them came from the prefix cache.
        answers: tokens of all answers.
        reasoning: how many of them are reasoning.
    """

    prompt: int = 0
    cached: int = 0
    answers: int = 0
    reasoning: int = 0

    def add(self, turn: Turn) -> None:
        """Add a turn."""
        self.prompt += turn.prompt_tokens
        self.cached += turn.cached_tokens
        self.answers += turn.reader.num_tokens
        self.reasoning += turn.reader.num_reasoning

    def describe(self) -> ResponseUsage:
        """Return the numbers as a response has them."""
        return ResponseUsage(
            input_tokens=self.prompt,
            input_tokens_details=InputTokensDetails(cached_tokens=self.cached),
            output_tokens=self.answers,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=self.reasoning),
            total_tokens=self.prompt + self.answers,
        )


def _dump(part: Reply) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True)
