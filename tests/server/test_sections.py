"""Pieces of an answer become sections, one after another."""

from glm_runtime.answering.settings import Piece
from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.text.tool_calls import ToolCallDelta
from glm_server.sections import SectionReader

EOS = 9


def score(value: float) -> TokenLogprobs:
    return TokenLogprobs(value, ())


def read(*pieces: Piece) -> tuple[SectionReader, list[tuple[str, str, str]]]:
    reader = SectionReader([EOS])
    changes = [change for piece in pieces for change in reader.add(piece)]
    return reader, [(change.section.kind, change.step, change.text) for change in changes]


def test_each_section_is_closed_before_the_next_one_begins() -> None:
    reader, changes = read(
        Piece("", 1, reasoning="so", is_reasoning=True),
        Piece("", 2, is_reasoning=True),
        Piece("a", 3),
        Piece("", 4, tool_call_deltas=(ToolCallDelta(0, "call_0", "get", ""),)),
        Piece("", 5, tool_call_deltas=(ToolCallDelta(0, "call_0", "", "{}"),)),
        Piece("", 6, tool_call_deltas=(ToolCallDelta(1, "call_1", "put", ""),)),
        Piece("b", 7),
        Piece("", EOS, "tool_calls"),
    )
    assert changes == [
        ("reasoning", "open", ""),
        ("reasoning", "grow", "so"),
        ("reasoning", "close", ""),
        ("text", "open", ""),
        ("text", "grow", "a"),
        ("text", "close", ""),
        ("call", "open", ""),
        ("call", "grow", "{}"),
        ("call", "close", ""),
        ("call", "open", ""),
        ("call", "close", ""),
        ("text", "open", ""),
        ("text", "grow", "b"),
        ("text", "close", ""),
    ]
    assert [(one.index, one.name, one.text) for one in reader.sections] == [
        (0, "", "so"),
        (1, "", "a"),
        (2, "get", "{}"),
        (3, "put", ""),
        (4, "", "b"),
    ]
    assert (reader.num_tokens, reader.num_reasoning, reader.finish_reason) == (8, 2, "tool_calls")


def test_all_parts_of_a_call_may_come_at_once() -> None:
    deltas = (ToolCallDelta(0, "call_0", "get", ""), ToolCallDelta(0, "call_0", "", '{"a": 1}'))
    reader, changes = read(Piece("a", 1, "tool_calls", tool_call_deltas=deltas))
    assert [step for _, step, _ in changes] == ["open", "grow", "close", "open", "grow", "close"]
    assert reader.sections[1].text == '{"a": 1}'


def test_scores_belong_to_the_text_that_they_complete() -> None:
    """Those of reasoning, of calls and of the end are left out; a character may have two."""
    reader, _ = read(
        Piece("", 1, reasoning="so", logprobs=score(-1), is_reasoning=True),
        Piece("", 2, logprobs=score(-2), is_reasoning=True),
        Piece("", 3, logprobs=score(-3)),
        Piece("月", 4, logprobs=score(-4)),
        Piece("", 5, logprobs=score(-5)),
        Piece("", 6, None, tool_call_deltas=(ToolCallDelta(0, "call_0", "get", ""),)),
        Piece("", EOS, "tool_calls", logprobs=score(-6)),
    )
    assert [[token.id for token in one.tokens] for one in reader.sections] == [[], [3, 4], []]


def test_scores_at_the_end_of_a_text_are_kept() -> None:
    reader, changes = read(
        Piece("a", 1, logprobs=score(-1)), Piece("", 2, "length", logprobs=score(-2))
    )
    assert [token.id for token in reader.sections[0].tokens] == [1, 2]
    assert changes[-2:] == [("text", "grow", ""), ("text", "close", "")]
