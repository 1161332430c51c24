"""The sections of an answer to the items and events of a response.

Source of the events: openai-python, `types/responses/response_stream_event.py`.
"""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from glm_runtime.text.tokenizer import Tokenizer
from glm_server.errors import ApiError
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

    def __init__(self, reply: ResponseReply, tokenizer: Tokenizer) -> None:
        """Start with an empty response.

        Args:
            reply: the response; its items are added in order, over all turns.
            tokenizer: names the tokens of log-probabilities.
        """
        self.reply = reply
        self._tokenizer = tokenizer
        self._num_events = 0

    def begin(self) -> Iterator[Event]:
        """Yield the events before the first item."""
        yield self._describe("created")
        yield self._describe("in_progress")

    def add(self, change: Change, *, is_cut: bool) -> Iterator[Event]:
        """Take a change of a section; yield its events.

        Args:
            change: the change.
            is_cut: whether a limit has ended the answer.
        """
        if change.step == "open":
            yield from self._open(change.section)
        elif change.step == "close":
            yield from self._close("incomplete" if is_cut else "completed")
        else:
            yield from self._grow(change)

    def finish(self, turn: Turn) -> Iterator[Event]:
        """Take the end of the last turn; yield the last events."""
        reply, is_cut = self.reply, turn.reader.finish_reason == "length"
        if not is_cut and all(item.type == "reasoning" for item in reply.output):
            yield from self._open(Section(0, "text"))
            yield from self._close("completed")
        reply.usage = measure_usage(turn)
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
        item: OutputItem
        if section.kind == "call":
            item = OutputCall(id=_make_id("fc"), call_id=section.id, name=section.name)
        elif section.kind == "reasoning":
            item = OutputReasoning(id=_make_id("rs"))
        else:
            item = OutputMessage(id=_make_id("msg"))
        self.reply.output.append(item)
        yield self._number("response.output_item.added", item=_dump(item))
        if isinstance(item, OutputMessage):
            item.content.append(OutputText())
        elif isinstance(item, OutputReasoning):
            item.content.append(OutputReasoningText())
        if not isinstance(item, OutputCall):
            yield self._number_part("response.content_part.added", part=_dump(item.content[0]))

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
        else:
            item.arguments += change.text
            yield self._number_item("response.function_call_arguments.delta", delta=change.text)

    def _close(self, status: ItemStatus) -> Iterator[Event]:
        item = self.reply.output[-1]
        item.status = status
        if isinstance(item, OutputCall):
            yield self._number_item(
                "response.function_call_arguments.done", name=item.name, arguments=item.arguments
            )
        else:
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


def measure_usage(turn: Turn) -> ResponseUsage:
    """Return the number of tokens of a turn so far."""
    return ResponseUsage(
        input_tokens=turn.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=turn.cached_tokens),
        output_tokens=turn.reader.num_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=turn.reader.num_reasoning),
        total_tokens=turn.prompt_tokens + turn.reader.num_tokens,
    )


def _make_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _dump(part: Reply) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True)
