"""The sections of an answer to the blocks and events of a message.

Source of the events: anthropic-sdk-python, `types/raw_message_stream_event.py`.
"""

import json
import sys
import uuid
from collections.abc import Iterator
from typing import Any

from glm_server.anthropic.reply import (
    SIGNATURE,
    MessageReply,
    OutputTokensDetails,
    ReplyBlock,
    ReplyText,
    ReplyThinking,
    ReplyToolUse,
    StopReason,
    Usage,
)
from glm_server.sections import Change, Section
from glm_server.turns import Turn

Event = dict[str, Any]


class MessageWriter:
    """Describes each step of an answer as an event."""

    def __init__(self, turn: Turn, max_tokens: int) -> None:
        """Start.

        Args:
            turn: the answer.
            max_tokens: the limit of its tokens that was requested.
        """
        self._turn = turn
        self._max_tokens = max_tokens
        self._id = f"msg_{uuid.uuid4().hex}"

    def describe(self) -> dict[str, Any]:
        """Return the message as far as it has arrived, a `MessageReply`."""
        reader = self._turn.reader
        reply = MessageReply(
            id=self._id,
            model=self._turn.loaded.name,
            content=[_fill_block(section) for section in reader.sections],
            stop_reason=self._find_stop_reason(),
            stop_sequence=reader.stop_string,
            usage=self._measure_usage(),
        )
        described = reply.model_dump()
        # Put in afterwards, because pydantic refuses objects of more than 255 levels.
        for section, block in zip(reader.sections, described["content"], strict=True):
            if section.kind == "call":
                block["input"] = read_arguments(section.text)
        return described

    def begin(self) -> Iterator[Event]:
        """Yield the events before the first block."""
        yield {"type": "message_start", "message": self.describe()}
        yield {"type": "ping"}

    def add(self, change: Change) -> Iterator[Event]:
        """Take a change of a section; yield its events."""
        section = change.section
        if change.step == "open":
            block = _open_block(section).model_dump()
            yield {"type": "content_block_start", "index": section.index, "content_block": block}
        elif change.step == "grow":
            yield _write_delta(section, _describe_growth(change))
        else:
            if section.kind == "reasoning":
                yield _write_delta(section, {"type": "signature_delta", "signature": SIGNATURE})
            yield {"type": "content_block_stop", "index": section.index}

    def finish(self) -> Iterator[Event]:
        """Yield the events after the last block."""
        delta = {
            "stop_reason": self._find_stop_reason(),
            "stop_sequence": self._turn.reader.stop_string,
        }
        usage = self._measure_usage().model_dump()
        yield {"type": "message_delta", "delta": delta, "usage": usage}
        yield {"type": "message_stop"}

    def _find_stop_reason(self) -> StopReason | None:
        reader = self._turn.reader
        if reader.finish_reason == "length":
            is_limit = reader.num_tokens >= self._max_tokens
            return "max_tokens" if is_limit else "model_context_window_exceeded"
        if reader.finish_reason == "stop_string":
            return "stop_sequence"
        if reader.finish_reason == "tool_calls":
            return "tool_use"
        return None if reader.finish_reason is None else "end_turn"

    def _measure_usage(self) -> Usage:
        turn, reader = self._turn, self._turn.reader
        return Usage(
            input_tokens=turn.prompt_tokens - turn.cached_tokens,
            cache_read_input_tokens=turn.cached_tokens,
            output_tokens=reader.num_tokens,
            output_tokens_details=OutputTokensDetails(thinking_tokens=reader.num_reasoning),
        )


def _open_block(section: Section) -> ReplyBlock:
    """Return the block of a section that has just begun."""
    if section.kind == "text":
        return ReplyText()
    if section.kind == "reasoning":
        return ReplyThinking()
    return ReplyToolUse(id=section.id, name=section.name)


def _fill_block(section: Section) -> ReplyBlock:
    block = _open_block(section)
    if isinstance(block, ReplyText):
        block.text = section.text
    elif isinstance(block, ReplyThinking):
        block.thinking, block.signature = section.text, SIGNATURE
    return block


def read_arguments(text: str) -> Any:
    """Return the object that a call's arguments describe; numbers stay within JSON's range."""
    return json.loads(text, parse_float=_read_number)


def _read_number(text: str) -> float:
    largest = sys.float_info.max
    return min(max(float(text), -largest), largest)


def _describe_growth(change: Change) -> dict[str, str]:
    if change.section.kind == "text":
        return {"type": "text_delta", "text": change.text}
    if change.section.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": change.text}
    return {"type": "input_json_delta", "partial_json": change.text}


def _write_delta(section: Section, delta: dict[str, str]) -> Event:
    return {"type": "content_block_delta", "index": section.index, "delta": delta}
