"""Prompts equal transformers' for templates with the constructions of all released models.

Every test here failed before the features of a template were found by rendering it.
"""

import pytest

from glm_runtime import ChatOptions, PromptError
from glm_runtime.text.chat_template import ChatTemplate
from support.chat_conversations import ASKED, CONVERSATIONS, VERSE, WEATHER, render_reference
from support.chat_templates import OWN_SYSTEM, READS_CALLS, SETS_TOOLS, list_templates

SOURCES = list_templates()


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_prompts_are_those_of_transformers(name: str, conversation: str):
    source, style = SOURCES[name]
    chosen = CONVERSATIONS[conversation]
    expected = render_reference(source, chosen, style)
    template = ChatTemplate(source)
    options = ChatOptions(chosen.tools, chosen.thinking)
    if expected is None:
        with pytest.raises(PromptError):
            template.render(chosen.messages, options, is_answer_next=chosen.is_answer_next)
        return
    rendered = template.render(chosen.messages, options, is_answer_next=chosen.is_answer_next)
    assert rendered == expected


def test_a_variable_that_the_template_sets_is_not_the_callers():
    """GLM-4-9B-chat's template sets `tools`; therefore no tool reached the model."""
    text = ChatTemplate(SETS_TOOLS).render([ASKED], ChatOptions((WEATHER,)))
    assert "## get_weather" in text


@pytest.mark.parametrize("source", [OWN_SYSTEM, SOURCES["GLM-Edge"][0]])
def test_a_tools_name_in_the_question_is_no_tool_in_the_prompt(source: str):
    with pytest.raises(PromptError, match="does not write the tool 'get_weather'"):
        ChatTemplate(source).require_written([ASKED], ChatOptions((WEATHER,)))


def test_each_tool_must_be_written():
    source = "{% for m in messages %}{{ m.content }}{% endfor %}{{ (tools or [{}])[0] | tojson }}"
    template = ChatTemplate(source)
    template.require_written([ASKED], ChatOptions((WEATHER,)))
    with pytest.raises(PromptError, match="does not write the tool 'get_verse'"):
        template.require_written([ASKED], ChatOptions((WEATHER, VERSE)))


@pytest.mark.parametrize(
    ("name", "role"), [("Rumination", "system"), ("GLM-4.5", "critic"), ("GLM-Edge", "tool")]
)
def test_a_role_that_the_template_drops_is_named(name: str, role: str):
    messages = [{"role": "user", "content": "a"}, {"role": role, "content": "b"}]
    with pytest.raises(PromptError, match=rf"messages with the role '{role}' .*\(message 2\)"):
        ChatTemplate(SOURCES[name][0]).require_written(messages)


def test_metadata_that_the_template_drops_is_named():
    messages = [ASKED, {"role": "assistant", "metadata": "get_weather", "content": "{}"}]
    ChatTemplate(SOURCES["GLM-4-0414"][0]).require_written(messages)
    with pytest.raises(PromptError, match="does not write the metadata 'get_weather'"):
        ChatTemplate(SOURCES["GLM-Edge"][0]).require_written(messages)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("conversation", ["turns", "earlier thoughts", "null content"])
def test_nothing_is_said_where_nothing_is_left_out(name: str, conversation: str):
    ChatTemplate(SOURCES[name][0]).require_written(CONVERSATIONS[conversation].messages)


def test_arguments_as_json_text_become_an_object():
    """OpenAI's clients send JSON text; GLM-4.5's template iterates over an object."""
    call = {"function": {"name": "get_weather", "arguments": '{"city": "北京"}'}}
    messages = [ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}]
    text = ChatTemplate(READS_CALLS).render(messages)
    assert "<arg_key>city</arg_key>\n<arg_value>北京</arg_value>" in text


def test_arguments_become_json_text_where_the_template_writes_them_as_they_are():
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}{{ c.function.arguments }}{% endfor %}{% endfor %}"
    )
    call = {"function": {"name": "f", "arguments": {"a": "诗"}}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    assert ChatTemplate(source).render(messages) == 'f{"a": "诗"}'


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_has_the_name_that_transformers_gives_it(key: str):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", key: "why"}]
    assert "<think>why</think>\ny" in ChatTemplate(READS_CALLS).render(messages)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "a part of the type 'image_url' where only text is supported",
        ),
        ({"role": "user", "content": [{"text": 3}]}, "a part of the type None"),
        ({"role": "user", "content": [3]}, "a part of the type 'int'"),
        ({"role": "user", "content": {"a": 1}}, "has the content {'a': 1} where text is expected"),
        ({"content": "x"}, "an object with a role is expected"),
        ("x", "an object with a role is expected"),
    ],
)
def test_a_content_that_is_no_text_is_refused_by_name(message: object, words: str):
    with pytest.raises(PromptError, match=words):
        ChatTemplate(READS_CALLS).render([message])  # type: ignore[list-item]
