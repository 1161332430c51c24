"""A chat table writes what the checkpoint's Jinja template writes, or is not there."""

import json
import random
from pathlib import Path

import pytest

from glm_export import chat_table
from glm_export.chat_table import build_chat_table, generate_conversations
from glm_export.tokenizer_files import _CHATGLM2_TEMPLATE, _CHATGLM3_TEMPLATE, _GLM4_TEMPLATE
from glm_runtime.chat_messages import ChatOptions, Message
from glm_runtime.chat_template import ChatTemplate
from glm_runtime.errors import PromptError
from support.tiny_models import TEMPLATE

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
# Written after the released templates' behaviour: system messages first, thoughts dropped.
LIKE_0414 = """\
[gMASK]<sop>
{%- if tools %}<|system|>
# tools{% for tool in tools %}
{{ tool | tojson }}{% endfor %}{% endif -%}
{%- for message in messages if message.role == 'system' %}<|system|>
{{ message.content }}{% endfor -%}
{%- for message in messages if message.role != 'system' -%}
{%- set shown = message.content.split('</think>')[-1].strip() -%}
{%- if message.role == 'user' %}<|user|>
{{ shown }}{% elif message.role == 'assistant' and not message.metadata %}<|assistant|>
{{ shown }}{% elif message.role == 'assistant' %}<|assistant|>{{ message.metadata }}
{{ shown }}{% elif message.role == 'observation' %}<|observation|>
{{ shown }}{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif -%}
"""
LIKE_EDGE = (
    "{% for item in messages %}{% if item['role'] == 'system' %}<|system|>\n{{ item['content'] }}"
    "{% elif item['role'] == 'user' %}\n<|user|>\n{{ item['content'] }}"
    "{% elif item['role'] == 'assistant' %}\n<|assistant|>\n{{ item['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}\n<|assistant|>\n{% endif %}"
)
THINKING = TEMPLATE.replace(
    "<|assistant|>\n{% endif %}",
    "<|assistant|>\n{% if enable_thinking is defined and enable_thinking %}<think>\n"
    "{% elif enable_thinking is defined %}<think></think>\n{% endif %}{% endif %}",
)
SUFFIXED = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EXPRESSED = {
    "sample": (SAMPLE / "chat_template.jinja").read_text(encoding="utf-8"),
    "tiny": TEMPLATE,
    "GLM-4-0414": LIKE_0414,
    "GLM-4-9B-chat": _GLM4_TEMPLATE,
    "ChatGLM3": _CHATGLM3_TEMPLATE,
    "GLM-Edge": LIKE_EDGE,
    "thinking": THINKING,
    "suffixes": SUFFIXED,
}
NOT_EXPRESSED = {
    "rounds are counted": _CHATGLM2_TEMPLATE,
    "the last thoughts are kept": (
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
    assert {"system", "user", "assistant"} <= table.roles.keys()
    conversations = list(generate_conversations(table, seed=1))
    assert len(conversations) > 400
    choices = {"default": None, "thinking": True, "not_thinking": False}
    for messages in conversations:
        for thinking, choice in choices.items():
            expected = template.render(messages, ChatOptions(enable_thinking=choice))
            assert table.render(messages, thinking) == expected


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


def test_the_file() -> None:
    table = build_chat_table(ChatTemplate(EXPRESSED["GLM-4-0414"]))
    assert table is not None
    content = json.loads(table.to_json())
    assert (content["format"], content["format_version"]) == ("glm-chat-table", 1)
    assert content["not_expressed"] == list(chat_table.NOT_EXPRESSED)
    assert content["system_first"] is True
    assert content["roles"]["user"] == {
        "first": "[gMASK]<sop><|user|>\n",
        "prefix": "<|user|>\n",
        "suffix": "",
        "content": "answer",
    }
    assert content["generation_prompt"]["default"] == "<|assistant|>"
