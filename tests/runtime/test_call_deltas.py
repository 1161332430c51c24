"""Calls while they arrive: their parts are the whole, and none is taken back."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_runtime import GenerationSettings, Model, Request, SamplingSettings
from glm_runtime.answering.generation import AnswerWriter
from glm_runtime.text.answer import AnswerForm, AnswerReader
from glm_runtime.text.dialects.all_tools import TURN
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.tokenizer import Tokenizer
from glm_runtime.text.tool_calls import ToolCall, ToolCallDelta, ToolCallParser
from runtime.greedy_answers import write_tokens
from support.call_texts import DIALECTS
from support.property_tests import examples
from support.tiny_models import build_tokenizer

LINES, TAGS, BARE, PYTHON, TOOLS = (texts.dialect for texts in DIALECTS.values())


def parse(
    dialect: CallDialect, parts: Sequence[str], *, is_eager: bool = True
) -> tuple[str, tuple[ToolCall, ...]]:
    """The text and the calls, of which the deltas must be the parts."""
    parser = ToolCallParser(dialect, is_eager=is_eager, num_calls=3)
    deltas: list[ToolCallDelta] = []
    shown = ""
    for part in parts:
        shown += parser.add(part)
        deltas += parser.take_deltas()
    rest, calls = parser.finish()
    deltas += parser.take_deltas()
    assert join(deltas) == calls
    return shown + rest, calls


def join(deltas: Sequence[ToolCallDelta]) -> tuple[ToolCall, ...]:
    """Put the parts together as a client of OpenAI's API does."""
    calls: list[ToolCall] = []
    for delta in deltas:
        if delta.name:
            assert delta.index == len(calls) and not delta.arguments
            calls.append(ToolCall(delta.name, "", delta.id))
        assert delta.index == len(calls) - 1
        last = calls[-1]
        assert delta.id == last.id
        calls[-1] = ToolCall(last.name, last.arguments + delta.arguments, last.id)
    return tuple(calls)


@pytest.mark.parametrize("name", DIALECTS)
@examples(400)
@given(data=st.data())
def test_the_parts_do_not_depend_on_the_pieces(name: str, data: st.DataObject):
    texts = DIALECTS[name]
    choice = st.sampled_from([*texts.pieces, *texts.calls, *texts.wrong, " and", "\n", "```"])
    pieces = data.draw(st.lists(choice, max_size=10))
    text = "".join(pieces)
    expected = parse(texts.dialect, [text])
    assert parse(texts.dialect, pieces) == expected
    assert parse(texts.dialect, list(text)) == expected


@pytest.mark.parametrize("name", DIALECTS)
@examples(300)
@given(data=st.data())
def test_whole_calls_at_the_end_are_those_of_a_patient_parser(name: str, data: st.DataObject):
    said = data.draw(st.sampled_from(["", "I look.\n", "```\nget\n{}\n<tool_call>get\n```\n"]))
    texts = DIALECTS[name]
    calls = data.draw(st.lists(st.sampled_from(texts.calls), min_size=1, max_size=4))
    text = said + texts.between * (said != "") + texts.between.join(calls)
    expected = parse(texts.dialect, [text], is_eager=False)
    assert len(expected[1]) == len(calls)
    assert parse(texts.dialect, list(text)) == expected


@pytest.mark.parametrize("name", DIALECTS)
@examples(300)
@given(data=st.data())
def test_without_a_certain_head_all_is_text(name: str, data: st.DataObject):
    parts = ["get", "\n", "{x", "{ ", "[", " <", "tool_call>", "<tool_call>go", "search(", "a"]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=10)))
    assert parse(DIALECTS[name].dialect, list(text)) == (text, ())


def test_arguments_arrive_while_they_are_written():
    parser = ToolCallParser(LINES, is_eager=True)
    assert parser.add('Look:\nget_verse\n{"') == "Look:\n"
    assert parser.take_deltas() == (
        ToolCallDelta(0, "call_0", "get_verse", ""),
        ToolCallDelta(0, "call_0", "", '{"'),
    )
    assert parser.add('at": ') == ""
    assert parser.take_deltas() == (ToolCallDelta(0, "call_0", "", 'at": '),)
    assert parser.add("1}\nget") == ""
    assert parser.take_deltas() == (ToolCallDelta(0, "call_0", "", "1}"),)
    assert parser.add("\n{}") == ""
    assert [one.index for one in parser.take_deltas()] == [1, 1]


def test_a_tagged_argument_arrives_when_it_is_complete_and_a_string_while_it_is_written():
    parser = ToolCallParser(TAGS, is_eager=True)
    assert parser.add("<tool_call>get_verse\n<") == ""
    assert parser.take_deltas() == ()
    parser.add("arg_key>")
    assert parser.take_deltas() == (ToolCallDelta(0, "call_0", "get_verse", ""),)
    parser.add("at</arg_key><arg_value>a\nb</arg")
    assert [one.arguments for one in parser.take_deltas()] == ['{"at": "a\\nb']
    parser.add("_value><arg_key>n</arg_key>\n<arg_value>[1,")
    assert [one.arguments for one in parser.take_deltas()] == ['", "n": ']
    parser.add("2]</arg_value></tool_call>")
    assert [one.arguments for one in parser.take_deltas()] == ["[1,2]}"]


@pytest.mark.parametrize(
    ("dialect", "text", "shown", "arguments"),
    [
        (LINES, 'get\n{"a": bad} and more', "", ['{"a": bad} and more']),
        (LINES, 'get\n{"a": "cut', "", ['{"a": "cut']),
        (LINES, 'get\n{"a": 1} is how.\nget\n{}', " is how.\n", ['{"a": 1}', "{}"]),
        (LINES, "get\n{}\n\nSo.", "\n\nSo.", ["{}"]),
        (LINES, "get\n```\n{}\nSo\nget\n{}\n```\n", "\nSo\nget\n{}\n```\n", ["{}"]),
        (LINES, "get\n{}\nget\n{bad", "\nget\n{bad", ["{}"]),
        (BARE, '{"name": "get", "arguments": {"a": 1}, "b', "", ['{"a": 1}, "b']),
        (BARE, '{"name": "get", "arguments": {"a": x}}', "", ['{"a": x}}']),
        (PYTHON, "get\ntool_call(a=f(1))", "", ['{"a": f(1))']),
        (PYTHON, "get\ntool_call(a='x', ", "", ['{"a": "x"']),
        (TOOLS, "python\nx = 1", "", ['{"code": "x = 1"}']),
        (TOOLS, f"python\nx{TURN}\nSo.", "\n\nSo.", ['{"code": "x"}']),
        (TAGS, "<tool_call>get<arg_key>a</arg_key>x", "", ['{"a": x']),
        (TAGS, "<tool_call>get<arg_key>a</arg_key><arg_value>1", "", ['{"a": 1']),
        (TAGS, "<tool_call>get</tool_call> is how", " is how", ["{}"]),
        (
            TAGS,
            "<tool_call>get_verse<arg_key>at</arg_key><arg_value>1\n</arg_v",
            "",
            ['{"at": "1\\n</arg_v'],
        ),
    ],
)
def test_a_call_stays_one(dialect: CallDialect, text: str, shown: str, arguments: list[str]):
    for parts in ([text], list(text)):
        found, calls = parse(dialect, parts)
        assert (found, [call.arguments for call in calls]) == (shown, arguments)


def test_code_arrives_while_it_is_written():
    parser = ToolCallParser(TOOLS, is_eager=True)
    parts = []
    for piece in ("python", "\n", 'print("', 'a")\n', f"{TURN}get", "\n{}"):
        assert parser.add(piece) == ""
        parts.append([(one.name, one.arguments) for one in parser.take_deltas()])
    assert parts == [
        [],
        [],
        [("python", ""), ("", '{"code": "print(\\"')],
        [("", 'a\\")\\n')],
        [("", '"}')],
        [("get", ""), ("", "{}")],
    ]


def test_python_arguments_arrive_as_json():
    parser = ToolCallParser(PYTHON, is_eager=True)
    parts = []
    for piece in ("get\ntool_call(", "a='x", "y', b=Tr", "ue", ")"):
        assert parser.add(piece) == ""
        parts.append("".join(one.arguments for one in parser.take_deltas()))
    assert parts == ["{", '"a": "x', 'y", "b": ', "", "true}"]


@pytest.mark.parametrize("streams_calls", [False, True])
def test_pieces_have_the_parts(tiny_model: Model, streams_calls: bool):
    entry, tokenizer = tiny_model.manifest.model, tiny_model.tokenizer
    tokens = [*tokenizer.encode('So:\nget\n{"a": "b c"}'), entry.eos_token_ids[1]]
    form = AnswerForm(is_chat=True, dialect=LINES, streams_calls=streams_calls, num_calls=1)
    request = Request([5], GenerationSettings(SamplingSettings(temperature=0)), form)
    pieces = write_tokens(AnswerWriter(tokenizer, entry, request), tokens)
    calls = (ToolCall("get", '{"a": "b c"}', "call_1"),)
    assert pieces[-1].tool_calls == calls
    assert join([delta for piece in pieces for delta in piece.tool_call_deltas]) == calls
    early = any(piece.tool_call_deltas for piece in pieces[:-1])
    assert early is streams_calls


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize(
    ("dialect", "first", "second"),
    [
        (LINES, "get\n{}", "\nget\n{"),
        (TAGS, "<tool_call>get</tool_call>", "<tool_call>get</tool_call>"),
        (PYTHON, "get\ntool_call()", "\nget\ntool_call("),
    ],
)
def test_an_answer_with_one_call_ends_where_a_second_begins(
    dialect: CallDialect, first: str, second: str, is_eager: bool
):
    """The second call was written to its end, and dropped."""
    parser = ToolCallParser(dialect, is_eager=is_eager, is_single=True)
    assert parser.add(f"So:\n{first}{second[:-1]}") == "So:\n"
    assert not parser.has_ended
    assert parser.add(second[-1]) == ""
    assert parser.has_ended
    assert parser.add("}and more") == ""
    assert parser.finish() == ("", (ToolCall("get", "{}", "call_0"),))
    assert {delta.index for delta in parser.take_deltas()} == {0}


def test_the_answer_of_a_model_ends_there(tiny_model: Model):
    entry, tokenizer = tiny_model.manifest.model, tiny_model.tokenizer
    tokens = tokenizer.encode("get\n{}\nget\n{")
    form = AnswerForm(is_chat=True, dialect=LINES, is_single=True)
    request = Request([5], GenerationSettings(SamplingSettings(temperature=0)), form)
    last = write_tokens(AnswerWriter(tokenizer, entry, request), tokens)[-1]
    assert (last.finish_reason, len(last.tool_calls)) == ("tool_calls", 1)


def read_answer(dialect: CallDialect, parts: Sequence[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """The text and the calls of an answer; parts in angle brackets are special tokens."""
    inner = build_tokenizer()
    inner.add_special_tokens(sorted({part for part in parts if part.startswith("<")}))
    tokenizer = Tokenizer(inner)
    reader = AnswerReader(tokenizer, AnswerForm(is_chat=True, dialect=dialect), ())
    tokens = [token for part in parts for token in tokenizer.encode(part)]
    shown = [reader.add(token).text for token in tokens]
    last = reader.finish()
    return "".join(shown) + last.text, last.tool_calls


def test_tags_that_are_special_tokens_are_text():
    parts = ["Look", "<tool_call>", "get", "<arg_key>", "a", "</arg_key>", "<arg_value>", "1"]
    parts += ["</arg_value>", "</tool_call>", "<|assistant|>", "<tool_call>", "get", "</tool_call>"]
    calls = (ToolCall("get", '{"a": 1}'), ToolCall("get", "{}", "call_1"))
    assert read_answer(TAGS, parts) == ("Look", calls)
    assert read_answer(LINES, ["<tool_call>", "x"]) == ("x", ())


def test_a_new_turn_ends_code_and_begins_the_next_call():
    parts = ["\nI look.", "<|assistant|>", "python\nx\ny", "<|assistant|>", "get\n{}"]
    calls = (ToolCall("python", '{"code": "x\\ny"}'), ToolCall("get", "{}", "call_1"))
    assert read_answer(TOOLS, parts) == ("I look.", calls)
    assert read_answer(TOOLS, ["So", "<|assistant|>", "\nYes"]) == ("So\n\nYes", ())
