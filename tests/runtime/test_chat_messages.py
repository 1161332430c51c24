"""OpenAI's messages in the words of GLM's templates."""

import pytest

from glm_runtime import ChatOptions, PromptError
from glm_runtime.chat_messages import adapt_messages
from glm_runtime.chat_template import ChatTemplate

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
    source = "{{ messages[1].tool_calls[0].function.name }} {{ messages[2].role }}"
    assert adapt_messages(MESSAGES, source) == MESSAGES
    assert ChatTemplate(source).render(MESSAGES) == "verse tool"


def test_the_callers_messages_stay_as_they_are():
    before = [dict(message) for message in MESSAGES]
    adapt_messages(MESSAGES, METADATA_TEMPLATE)
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
    with pytest.raises(PromptError, match="two tools are named 'a' where names must differ"):
        ChatOptions(({"name": "a"}, {"function": {"name": "a"}}))


def test_a_call_without_a_name_is_refused():
    messages = [{"role": "assistant", "content": "", "tool_calls": [{"arguments": "{}"}]}]
    with pytest.raises(PromptError, match="a tool is named None"):
        ChatTemplate(METADATA_TEMPLATE).render(messages)
