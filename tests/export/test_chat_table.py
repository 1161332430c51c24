"""A chat table writes what the checkpoint's Jinja template writes, or is not there."""

import json
import random

import pytest

from glm_export.tokenizer import chat_table
from glm_export.tokenizer.chat_table_guess import (
    build_chat_table,
    generate_conversations,
    generate_metadata_conversations,
    generate_tool_conversations,
)
from glm_export.tokenizer.chat_table_jinja import write_jinja
from glm_export.tokenizer.files import _CHATGLM2_TEMPLATE
from glm_runtime.errors import PromptError
from glm_runtime.text.chat_messages import ChatOptions, Message
from glm_runtime.text.chat_template import ChatTemplate
from support.chat_conversations import CONVERSATIONS, render_reference
from support.chat_templates import EXPRESSED, RELEASED_STYLES
from support.tiny_models import TEMPLATE

NOT_EXPRESSED = {
    "rounds are counted": _CHATGLM2_TEMPLATE,
    "only the last thoughts are kept": (
        "{% for m in messages %}<|{{ m.role }}|>{% if loop.last %}{{ m.content }}{% else %}"
        "{{ m.content.split('</think>')[-1] }}{% endif %}{% endfor %}"
    ),
    "a date": "{{ strftime_now('%f') }}" + TEMPLATE,
    "turns must alternate": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('no') }}{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    ),
    "content in upper case": TEMPLATE.replace("m.content", "m.content | upper"),
    "no conversation": "{{ raise_exception('no') }}",
    "nothing": "",
}


@pytest.mark.parametrize("name", sorted(EXPRESSED))
def test_equals_jinja(name: str) -> None:
    """On conversations of another seed than those that the exporter compared."""
    template = ChatTemplate(EXPRESSED[name], {"bos_token": "[gMASK]"})
    table = build_chat_table(template)
    assert table is not None
    assert {"user", "assistant"} <= table.roles.keys()
    conversations = list(generate_conversations(table, seed=1))
    assert len(conversations) > 400
    plain = ChatTemplate(write_jinja(table))
    choices = {"default": None, "thinking": True, "not_thinking": False}
    for messages in conversations:
        for thinking, choice in choices.items():
            options = ChatOptions(enable_thinking=choice)
            expected = template.render(messages, options)
            assert table.render(messages, thinking) == expected
            assert plain.render(messages, options) == expected


@pytest.mark.parametrize("name", sorted(NOT_EXPRESSED))
def test_what_is_not_expressed(name: str) -> None:
    assert build_chat_table(ChatTemplate(NOT_EXPRESSED[name])) is None


def test_any_text() -> None:
    """Contents that no list of ours holds, in random conversations."""
    generator = random.Random(0)
    letters = " \n\t<|>/think</think>{%}\u3000你🙂ab"
    for name in ("sample", "GLM-4-0414", "GLM-Edge"):
        template = ChatTemplate(EXPRESSED[name])
        table = build_chat_table(template)
        assert table is not None
        for _ in range(300):
            messages: list[Message] = [
                {"role": role, "content": "".join(generator.choices(letters, k=12))}
                for role in generator.choices(("user", "assistant", "system"), k=5)
            ]
            assert table.render(messages) == template.render(messages)


def test_a_role_without_a_rule() -> None:
    """A template that refuses a late system message: so does the table."""
    source = (
        "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
        "{{ raise_exception('late') }}{% endif %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    )
    template = ChatTemplate(source)
    table = build_chat_table(template)
    assert table is not None
    assert table.roles["system"].prefix is None
    late: list[Message] = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    assert table.render(late) is None
    with pytest.raises(PromptError, match="late"):
        template.render(late)
    with pytest.raises(PromptError, match="order of roles"):
        ChatTemplate(write_jinja(table)).render(late)
    with pytest.raises(PromptError, match="the role critic"):
        ChatTemplate(write_jinja(table)).render([{"role": "critic", "content": "c"}])


def test_the_file() -> None:
    table = build_chat_table(ChatTemplate(EXPRESSED["GLM-4-0414"]))
    assert table is not None
    content = json.loads(table.to_json(""))
    assert (content["format"], content["format_version"]) == ("glm-chat-table", 1)
    assert content["not_expressed"] == list(chat_table.NOT_EXPRESSED)
    assert content["metadata"] == {"assistant": "\n"}
    assert content["system_first"] is True
    assert content["roles"]["user"] == {
        "first": "[gMASK]<sop><|user|>\n",
        "prefix": "<|user|>\n",
        "suffix": "",
        "content": "answer",
    }
    assert content["generation_prompt"]["default"] == "<|assistant|>"


@pytest.mark.parametrize("name", sorted(RELEASED_STYLES))
def test_tools_and_calls_equal_jinja(name: str) -> None:
    """Rules of tools and calls, on conversations of another seed than the exporter's."""
    source, style = RELEASED_STYLES[name]
    template = ChatTemplate(source)
    table = build_chat_table(template)
    assert table is not None
    assert table.calls is not None
    assert (table.calls.is_python, table.has_system_tools) == (style == "python",) * 2
    assert (table.tools is not None) == (name in ("GLM-4-0414", "GLM-4-9B-chat", "GLM-4.5"))
    has_tools = table.tools is not None or table.has_system_tools
    for messages, tools in generate_tool_conversations(table, seed=1):
        given = tools if has_tools else ()
        expected = template.render(messages, ChatOptions(given))
        assert table.render(messages, tools=given) == expected
    for messages in generate_metadata_conversations(table, seed=1):
        assert table.render(messages) == template.render(messages)
    if not has_tools:
        return
    for chosen in CONVERSATIONS.values():
        is_plain = all(isinstance(one["content"], str) for one in chosen.messages)
        if chosen.tools and is_plain:
            expected = render_reference(source, chosen, style)
            assert table.render(chosen.messages, tools=chosen.tools) == expected


def test_the_tools_of_glm_4_all_tools() -> None:
    """The text of each, between functions or alone; calls in their own form, named results."""
    table = build_chat_table(ChatTemplate(EXPRESSED["GLM-4-9B-chat's own"]))
    assert table is not None and table.tools is not None
    assert {name: text.strip() for name, text in table.tools.built_in.items()} == {
        "python": "## python\n\nRuns code.",
        "cogview": "## cogview\n\nDraws.",
        "simple_browser": "## simple_browser\n\nOpens pages.",
    }
    call = {"name": "simple_browser", "arguments": {"action": "mclick", "ids": [1]}}
    messages: list[Message] = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "a page"},
    ]
    text = table.render(messages, tools=[{"type": "cogview"}])
    assert text is not None
    assert "# tools\n## cogview\n\nDraws.<|user|>" in text
    assert "<|assistant|>simple_browser\nmclick([1])<|observation|>browser_result\na page" in text
    other = build_chat_table(ChatTemplate(EXPRESSED["GLM-4-0414"]))
    assert other is not None and other.render(messages, tools=[{"type": "cogview"}]) is None
    assert "metadata of a message" not in json.loads(table.to_json(""))["not_expressed"]


def test_other_hosts_refuse_the_calls_of_chatglm3() -> None:
    """A library that knows only `calls` would write their arguments as JSON."""
    table = build_chat_table(ChatTemplate(RELEASED_STYLES["ChatGLM3"][0]))
    assert table is not None
    content = json.loads(table.to_json(""))
    assert "calls" not in content and "tools" not in content
    assert content["python_calls"]["prefix"] == "<|assistant|>\n "
    assert content["system_tools"].startswith("Answer the following questions")
    assert "tools and tool calls" not in content["not_expressed"]


def test_what_the_file_says_of_tools() -> None:
    table = build_chat_table(ChatTemplate(EXPRESSED["GLM-4-0414"]))
    assert table is not None
    content = json.loads(table.to_json(""))
    assert content["calls"]["prefix"] == "<|assistant|>"
    assert (content["calls"]["name_end"], content["calls"]["is_message"]) == ("\n", True)
    assert content["tools"]["value"] == "tool"
    edge = build_chat_table(ChatTemplate(EXPRESSED["GLM-Edge"]))
    assert edge is not None
    assert "tools" not in json.loads(edge.to_json(""))
    assert "tools and tool calls" in json.loads(edge.to_json(""))["not_expressed"]
