"""Calls and results of earlier turns, as each model of the family wrote and read them."""

import json
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from glm_runtime import ChatOptions, PromptError
from glm_runtime.text.chat_template import ChatTemplate
from support.chat_conversations import ASKED, WEATHER, assistant, call, result, system, user
from support.chat_templates import (
    OWN_SYSTEM,
    READS_CALLS,
    SETS_TOOLS,
    SOP_WITHOUT_BRACKETS,
    list_templates,
)

METADATA = SOP_WITHOUT_BRACKETS.replace("|>\n ", "|>{{ message.metadata or '' }}\n ")
TOOLS = ({"type": "python"}, {"type": "simple_browser"}, {"type": "cogview"}, WEATHER)
PAGES = [
    {"title": "A", "url": "https://a", "snippet": "诗"},
    {"title": "B", "url": "https://b", "snippet": "b", "id": 7},
]


def render(source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    """By transformers, without a generation prompt."""
    (text,), _ = render_jinja_template([messages], chat_template=source, **options)
    return str(text)


def named(id_: str, name: str, arguments: Any) -> dict[str, Any]:
    return {**call(name, arguments), "id": id_}


def test_all_tools():
    """Results have the metadata that the model was trained with."""
    calls = [
        named("1", "python", {"code": "print(1)\n"}),
        named("2", "simple_browser", '{"action": "search", "query": "x", "recency_days": 7}'),
        named("3", "cogview", {"prompt": "A cat."}),
        named("4", "get_weather", {"city": "x"}),
    ]
    messages = [
        ASKED,
        assistant("I look.", tool_calls=calls),
        {**result("drawn"), "tool_call_id": "3"},
        {**result("1"), "tool_call_id": "1"},
        {**result("found"), "tool_call_id": "2"},
        {**result("sun"), "tool_call_id": "4"},
        assistant("", tool_calls=[named("5", "simple_browser", {"action": "mclick", "ids": [0]})]),
        {**result("page"), "metadata": "quote_result [7†source]"},
        assistant("It is so【7†source】."),
    ]
    reference = [
        {**system(""), "tools": [*TOOLS]},
        ASKED,
        assistant("I look."),
        assistant("print(1)\n", metadata="python"),
        assistant('search("x", recency_days=7)', metadata="simple_browser"),
        assistant("A cat.", metadata="cogview"),
        assistant('{"city": "x"}', metadata="get_weather"),
        {**result("drawn", "observation"), "metadata": "cogview_result"},
        result("1", "observation"),
        {**result("found", "observation"), "metadata": "browser_result"},
        result("sun", "observation"),
        assistant("mclick([0])", metadata="simple_browser"),
        {**result("page", "observation"), "metadata": "quote_result [7†source]"},
        messages[-1],
    ]
    rendered = ChatTemplate(SETS_TOOLS).render(messages, ChatOptions(TOOLS), is_answer_next=False)
    assert rendered == render(SETS_TOOLS, reference)
    assert "<|observation|>browser_result\nfound" in rendered


def test_results_without_ids_are_those_of_the_calls_in_order():
    calls = [call("cogview", {"prompt": "x"}), call("simple_browser", "open_url('x')")]
    messages = [ASKED, assistant("", tool_calls=[{**one, "id": None} for one in calls])]
    messages += [result("a"), result("b"), result("c")]
    text = ChatTemplate(SETS_TOOLS).render(messages, is_answer_next=False)
    assert "<|observation|>cogview_result\na<|observation|>browser_result\nb" in text
    assert text.endswith("<|observation|>\nc") and "simple_browser\nopen_url('x')" in text


def test_a_function_of_the_same_name_keeps_its_arguments():
    messages = [ASKED, assistant("", tool_calls=[call("python", {"code": "x"})]), result("1")]
    options = ChatOptions(({"name": "python"},))
    text = ChatTemplate(SETS_TOOLS).render(messages, options, is_answer_next=False)
    assert '<|assistant|>python\n{"code": "x"}<|observation|>\n1' in text


def test_rumination():
    messages = [
        user("?"),
        assistant("", tool_calls=[call("search", '{"query": "诗"}')]),
        result(json.dumps(PAGES)),
        assistant("", tool_calls=[call("finish", {})]),
        result("done"),
    ]
    reference = [
        user("?"),
        assistant('{"name": "search", "arguments": {"query": "诗"}}'),
        result("【0†A†https://a\n诗】\n\n【7†B†https://b\nb】", "observation"),
        assistant('{"name": "finish", "arguments": {}}'),
        result("done", "observation"),
    ]
    rendered = ChatTemplate(OWN_SYSTEM).render(messages, is_answer_next=False)
    assert rendered == render(OWN_SYSTEM, reference)


@pytest.mark.parametrize("content", ["[]", "[1]", '[{"title": "A"}]', "{}", "[", "【0†A†b\nc】"])
def test_other_results_of_rumination_stay_as_they_are(content: str):
    messages = [user("?"), assistant("", tool_calls=[call("search", {})]), result(content)]
    text = ChatTemplate(OWN_SYSTEM).render(messages, is_answer_next=False)
    assert text.endswith(f"<|observation|> \n{content}")


@pytest.mark.parametrize("system_message", [None, "Be brief."])
def test_chatglm3(system_message: str | None):
    """The tools stand below the system message, as its own tokenizer writes them."""
    head = [] if system_message is None else [system(system_message)]
    asked = [*head, ASKED]
    calls = [call("get_weather", '{"city": "it\'s \\"x\\"", "days": 2, "all": [true, null]}')]
    messages = [*asked, assistant("", tool_calls=calls), result("sun")]
    said = system_message or (
        "Answer the following questions as best as you can. You have access to the following tools:"
    )
    tools = json.dumps([WEATHER["function"]], ensure_ascii=False, indent=4)
    written = "tool_call(city='it\\'s \"x\"', days=2, all=[True, None])"
    reference = [
        system(f"{said}\n{tools}"),
        ASKED,
        assistant(f"```python\n{written}\n```", metadata="get_weather"),
        result("sun", "observation"),
    ]
    options = ChatOptions((WEATHER,))
    template = ChatTemplate(METADATA)
    assert template.render(messages, options, is_answer_next=False) == render(METADATA, reference)
    template.require_written(messages, options)
    text = ChatTemplate(SOP_WITHOUT_BRACKETS).render(messages, options, is_answer_next=False)
    assert f"<|assistant|>\n get_weather\n```python\n{written}\n```" in text


def test_glm_4_5_gets_objects_and_writes_results_between_tags():
    messages = [
        ASKED,
        assistant(None, tool_calls=[call("get_weather", '{"city": "北京", "days": [1]}')]),
        result("sun"),
    ]
    reference = [
        ASKED,
        assistant("", tool_calls=[call("get_weather", {"city": "北京", "days": [1]})]),
        result("sun"),
    ]
    rendered = ChatTemplate(READS_CALLS).render(messages, is_answer_next=False)
    assert rendered == render(READS_CALLS, reference)
    assert "<arg_value>[1]</arg_value>" in rendered
    assert "<|observation|>\n<tool_response>\nsun\n</tool_response>" in rendered


@pytest.mark.parametrize("name", list_templates())
def test_arguments_that_are_null_or_empty_are_an_empty_object(name: str):
    """They became the text `null`; some programs send "" for a call without arguments."""
    template = ChatTemplate(list_templates()[name][0])
    texts = {
        template.render([ASKED, assistant("", tool_calls=[call("f", given)]), result("sun")])
        for given in (None, "", {}, "{}")
    }
    assert len(texts) == 1


@pytest.mark.parametrize("source", [READS_CALLS, METADATA, OWN_SYSTEM])
@pytest.mark.parametrize("given", [[1], 5, False])
def test_arguments_of_other_types_are_refused(source: str, given: object):
    messages = [ASKED, assistant("", tool_calls=[call("f", given)])]
    with pytest.raises(PromptError, match=r"call of 'f' has the arguments .* where an object is"):
        ChatTemplate(source).render(messages)


@pytest.mark.parametrize("given", ["[1]", "null", "{bad"])
def test_a_text_that_is_no_object_is_refused_where_keys_have_tags(given: str):
    """GLM-4.5's template wrote them as an argument `raw_arguments`, which no tool has."""
    messages = [ASKED, assistant("", tool_calls=[call("f", given)])]
    with pytest.raises(PromptError, match=r"call of 'f' has the arguments .* where an object is"):
        ChatTemplate(READS_CALLS).render(messages)
    assert f"f\n {given}" in ChatTemplate(METADATA).render(messages)
