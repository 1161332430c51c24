"""OpenAI's messages in the words of GLM's templates."""

import pytest

from glm_runtime import ChatOptions, Model, PromptError
from glm_runtime.text.chat_messages import simplify_messages
from glm_runtime.text.chat_template import ChatTemplate

# How GLM-4-0414 writes a call: the tool's name behind the role, as `metadata`.
METADATA_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' ~ message.role ~ '|>' ~ message.metadata|default('') ~ '\n' ~ message.content -}}"
    "{%- if message.role == 'observation' %}{% endif -%}"
    "{%- endfor -%}"
)
VERSE = {"id": "1", "type": "function", "function": {"name": "verse", "arguments": {"at": "诗"}}}
POEM = {"name": "poem", "arguments": '{"title": 1}'}
MESSAGES = [
    {"role": "user", "content": "Read."},
    {"role": "assistant", "content": "", "tool_calls": [VERSE, POEM]},
    {"role": "tool", "tool_call_id": "1", "content": "In the beginning"},
    {"role": "assistant", "content": "Both.", "tool_calls": [POEM]},
]


def test_calls_become_metadata_and_results_observations():
    rendered = ChatTemplate(METADATA_TEMPLATE).render(MESSAGES)
    assert rendered == (
        "<|user|>\nRead."
        '<|assistant|>verse\n{"at": "诗"}'
        '<|assistant|>poem\n{"title": 1}'
        "<|observation|>\nIn the beginning"
        "<|assistant|>\nBoth."
        '<|assistant|>poem\n{"title": 1}'
    )


def test_a_template_that_knows_them_gets_them_as_they_are():
    source = (
        "{{ messages[1].tool_calls[0].function.name }} {{ messages[2].role }} "
        "{% if messages[2].role == 'tool' %}{{ messages[2].content }}{% endif %}"
    )
    assert ChatTemplate(source).render(MESSAGES) == "verse tool In the beginning"


def test_the_text_of_a_special_token_is_no_role():
    """GLM-4.5's template writes <|observation|> where it meets the role `tool`."""
    source = "{% for m in messages if m.role == 'tool' %}<|observation|>{{ m.content }}{% endfor %}"
    assert ChatTemplate(source).render(MESSAGES) == "<|observation|>In the beginning"


def test_tools_go_into_the_system_message_where_the_template_looks_for_them_there():
    """As GLM-4-9B-chat's does."""
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.metadata }}\n"
        "{% for tool in m['tools'] or [] %}{{ tool['function']['name'] }};{% endfor %}"
        "{{ m.content }}{% endfor %}"
    )
    options = ChatOptions((VERSE, {"name": "poem"}))
    rendered = ChatTemplate(source).render(MESSAGES[:1], options)
    assert rendered == "<|system|>\nverse;poem;<|user|>\nRead."
    with_system = [{"role": "system", "content": "S"}, *MESSAGES[:1]]
    rendered = ChatTemplate(source).render(with_system, options)
    assert rendered == "<|system|>\nverse;poem;S<|user|>\nRead."


def test_a_template_that_leaves_out_the_tools_is_refused(tiny_model: Model):
    with pytest.raises(PromptError, match="chat template does not write the tool 'verse'"):
        tiny_model.prepare_chat([{"role": "user", "content": "a"}], ChatOptions((VERSE,)))


def test_an_empty_conversation_is_refused(tiny_model: Model):
    with pytest.raises(PromptError, match="the conversation is empty; pass at least one message"):
        tiny_model.prepare_chat([])


def test_the_callers_messages_stay_as_they_are():
    before = [dict(message) for message in MESSAGES]
    ChatTemplate(METADATA_TEMPLATE).render(MESSAGES)
    assert before == MESSAGES


def test_thinking_is_told_to_the_template_only_if_chosen():
    template = ChatTemplate("{{ enable_thinking is defined }} {{ enable_thinking }}")
    assert template.render([]) == "False "
    assert template.render([], ChatOptions(enable_thinking=False)) == "True False"


@pytest.mark.parametrize(
    "tool",
    [{}, {"name": ""}, {"name": "a\nb"}, {"function": {"name": 3}}, {"function": "verse"}],
)
def test_a_tool_without_a_name_is_refused(tool: dict):
    with pytest.raises(PromptError, match=r"a tool is named .* where one line of text is expected"):
        ChatOptions((tool,))


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(PromptError, match="two tools have the name 'a' where names must differ"):
        ChatOptions(({"name": "a"}, {"function": {"name": "a"}}))


def test_a_call_without_a_name_is_refused():
    messages = [{"role": "assistant", "content": "", "tool_calls": [{"arguments": "{}"}]}]
    with pytest.raises(PromptError, match="a tool is named None"):
        ChatTemplate(METADATA_TEMPLATE).render(messages)


def test_an_answer_without_content_and_calls_is_refused():
    """GLM-Z1's template read the content, and Jinja's words were the error."""
    for answer in ({"content": None}, {"content": None, "tool_calls": []}, {"tool_calls": None}):
        with pytest.raises(PromptError, match="message 1 of the assistant has neither content nor"):
            simplify_messages([{"role": "assistant", **answer}])
    for answer in ({"content": ""}, {"tool_calls": [POEM]}, {"reasoning_content": "Hm."}):
        simplify_messages([{"role": "assistant", **answer}])


@pytest.mark.parametrize("calls", ["get_verse", {"name": "get_verse"}, ["get_verse"], 5])
def test_calls_that_are_no_list_of_objects_are_refused(calls: object):
    """A single object was dropped silently, so that the model did not see its own call."""
    with pytest.raises(PromptError, match=r"message 1 has the tool calls .* where a list of obj"):
        simplify_messages([{"role": "assistant", "content": "", "tool_calls": calls}])
