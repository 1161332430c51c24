"""Chat templates of all kinds that a chat table can hold."""

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
