"""Chat templates of all kinds that a chat table can hold."""

import os
from pathlib import Path

from glm_export.tokenizer.files import _CHATGLM3_TEMPLATE, _GLM4_TEMPLATE
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
# As GLM-4-9B-chat: a message without content is left out.
SKIPS_EMPTY = (
    "[gMASK]<sop>{% for m in messages %}{% if m.content %}<|{{ m.role }}|>{{ m.metadata }}\n"
    "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
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
    "without empty messages": SKIPS_EMPTY,
}

# Small templates with the constructions of the released ones, and how each reads calls: the styles
# of `chat_conversations.render_reference`.
SETS_TOOLS = (
    "[gMASK]<sop>{% for item in messages %}{% if item['tools'] is defined %}<|system|>\n# tools"
    "{% set tools = item['tools'] %}{% for tool in tools %}{% if tool['type'] == 'function' %}\n\n"
    "## {{ tool['function']['name'] }}\n\n{{ tool['function'] | tojson(indent=4) }}"
    "{% elif tool['type'] == 'python' %}\n\n## python\n\nRuns code."
    "{% elif tool['type'] == 'simple_browser' %}\n\n## simple_browser\n\nOpens pages."
    "{% elif tool['type'] == 'cogview' %}\n\n## cogview\n\nDraws.{% endif %}"
    "{% endfor %}{% endif %}{% if item['content'] %}<|{{ item['role'] }}|>{{ item['metadata'] }}\n"
    "{{ item['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% endif %}"
)
READS_CALLS = """\
[gMASK]<sop>
{%- if tools -%}<|system|>
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}{%- endif -%}
{%- macro visible(content) -%}
{%- if content is string -%}{{- content }}
{%- elif content is iterable and content is not mapping -%}
{%- for item in content -%}{{- item.text if item is mapping else item }}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {% set ns.last = loop.index0 -%}
    {%- endif %}
{%- endfor %}
{% for m in messages %}
{%- if m.role == 'user' -%}<|user|>
{%- set asked = visible(m.content) %}
{{ asked }}
{%- if enable_thinking is defined and not enable_thinking and not asked.endswith('/nothink') -%}
{{- '/nothink' -}}
{%- endif -%}
{%- elif m.role == 'assistant' -%}<|assistant|>
{%- set content = visible(m.content) %}
{%- set thoughts = m.reasoning_content if m.reasoning_content is string else '' %}
{%- if '</think>' in content %}
    {%- set thoughts = (content.split('</think>') | first).split('<think>') | last %}
    {%- set content = (content.split('</think>') | last).lstrip('\n') %}
{%- endif %}
{%- if loop.index0 > ns.last and thoughts.strip() -%}
{{ '\n<think>' + thoughts.strip() + '</think>' }}
{%- else -%}{{ '\n<think></think>' }}
{%- endif -%}
{%- if content.strip() -%}{{ '\n' + content.strip() }}{%- endif -%}
{% if m.tool_calls %}
{% for call in m.tool_calls %}
{{ '\n<tool_call>' + call.function.name }}
{%- for k, v in call.function.arguments.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v | tojson if v is not string else v }}</arg_value>
{%- endfor -%}
</tool_call>{% endfor %}
{% endif %}
{%- elif m.role == 'tool' -%}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|observation|>' }}{%- endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
{%- elif m.role == 'system' -%}<|system|>
{{ visible(m.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>
{{- '\n<think></think>' if enable_thinking is defined and not enable_thinking else '' -}}
{%- endif -%}
"""
OWN_SYSTEM = (
    "[gMASK]<sop><|system|>\nAlways this.\n\n"
    '[{"name": "search", "parameters": {"type": "object"}}, {"name": "finish"}]'
    "{%- for message in messages if message.role != 'system' %}"
    "{%- set visible = message['content'].split('</think>')[-1].strip() %}"
    "{%- set meta = message.get('metadata', '') %}<|{{ message['role'] }}|>{{ meta }} \n"
    "{{ visible }}"
    "{%- endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SOP_WITHOUT_BRACKETS = (
    "{% for message in messages %}{% if loop.first %}[gMASK]sop{% endif %}"
    "<|{{ message['role'] }}|>\n {{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
EXPRESSED |= {"GLM-4-9B-chat's own": SETS_TOOLS, "GLM-4.5": READS_CALLS, "Rumination": OWN_SYSTEM}
RELEASED_STYLES = {
    "GLM-4-0414": (LIKE_0414, "metadata"),
    "GLM-4-9B-chat": (SETS_TOOLS, "system"),
    "GLM-4.5": (READS_CALLS, "openai"),
    "Rumination": (OWN_SYSTEM, "bare"),
    "GLM-Edge": (LIKE_EDGE, "text"),
    "ChatGLM3": (SOP_WITHOUT_BRACKETS, "python"),
}
_OTHER_STYLES = {
    "chatglm3": "python",
    "glm-edge": "text",
    "glm-z1-rumination": "bare",
    "glm4-9b-chat": "system",
    "glm4.5": "openai",
}


def list_templates() -> dict[str, tuple[str, str]]:
    """Return source and style of the templates above, and of those in the folder GLM_TEMPLATES.

    No test needs the folder; who has released templates may add them.
    """
    folder = os.environ.get("GLM_TEMPLATES")
    files = sorted(Path(folder).glob("*.jinja")) if folder else []
    added = {
        file.stem: (file.read_text(encoding="utf-8"), _OTHER_STYLES.get(file.stem, "metadata"))
        for file in files
    }
    return RELEASED_STYLES | added
