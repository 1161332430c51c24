"""A chat table as a simple Jinja template, for hosts that support a part of Jinja.

onnxruntime-genai renders it. Its `strip` removes ASCII white space only.
"""

import itertools
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from glm_export.tokenizer.chat_table import CLOSING, OPENING, ChatTable, RoleRule, Thoughts

_CHANGES: Mapping[str, str] = MappingProxyType(
    {
        "as_is": "message.content",
        "strip": "message.content.strip()",
        "answer": f"message.content.split('{CLOSING}')[-1].strip()",
    }
)
_BEFORE = f"message.content.split('{CLOSING}')[0]"
_REASONING = f"{_BEFORE}.split('{OPENING}')[-1].strip()"


def write_jinja(table: ChatTable) -> str:
    """Return a template that writes what the table writes. It refuses tools."""
    parts = [_write_if("tools", _refuse("'this template writes no tools'"))]
    parts.append("{%- set place = namespace(is_first=true, users=0, previous='') -%}")
    if any(rule.thoughts for rule in table.roles.values()):
        parts.append(
            "{%- for message in messages if message.role == 'user' -%}"
            "{%- set place.users = place.users + 1 -%}{%- endfor -%}"
        )
    if table.is_system_first:
        parts.append(_write_loop(table, " if message.role == 'system'"))
        parts.append(_write_loop(table, " if message.role != 'system'"))
    else:
        parts.append(_write_loop(table, ""))
    prompt = {name: _write(text) for name, text in table.generation_prompt.items()}
    chosen = (
        f"{{%- if enable_thinking is not defined -%}}{prompt['default']}"
        f"{{%- elif enable_thinking -%}}{prompt['thinking']}"
        f"{{%- else -%}}{prompt['not_thinking']}{{%- endif -%}}"
    )
    return "".join(parts) + _write_if("add_generation_prompt", chosen)


def _write_loop(table: ChatTable, condition: str) -> str:
    parts = [f"{{%- for message in messages{condition} -%}}"]
    for word, (name, rule) in zip(_branch_words(), table.roles.items(), strict=False):
        parts.append(f"{{%- {word} message.role == {_quote(name)} -%}}")
        if name == "user":
            parts.append("{%- set place.users = place.users - 1 -%}")
        parts.append(_write_rule(rule))
    refusal = _refuse("'no rule for the role ' + message.role")
    parts.append("{%- else -%}" + refusal + "{%- endif -%}{%- set place.is_first = false -%}")
    parts.append("{%- set place.previous = message.role -%}{%- endfor -%}")
    return "".join(parts)


def _write_rule(rule: RoleRule) -> str:
    """Return Jinja that writes one `message` of this role."""
    refusal = _refuse("'no rule for this order of roles'")
    first, later = (refusal if text is None else _write(text) for text in (rule.first, rule.prefix))
    if rule.repeated is not None:
        repeated = _write(rule.repeated)
        later = _write_if("place.previous == message.role", repeated, later)
    before = first if first == later else _write_if("place.is_first", first, later)
    shown = _CHANGES[rule.content]
    content = f"{{{{- {shown} -}}}}"
    if rule.lead:
        content = _write_if(shown, _write(rule.lead) + content)
    if rule.no_thinking:
        ends = f"{shown}.endswith({_quote(rule.no_thinking)})"
        is_off = f"enable_thinking is defined and not enable_thinking and not {ends}"
        content += _write_if(is_off, _write(rule.no_thinking))
    text = before + _write_thoughts(rule.thoughts) + content + _write(rule.suffix)
    if not rule.skips_empty:
        return text
    return _write_if("message.content", text, _write_if("place.is_first", _write(rule.start)))


def _write_thoughts(thoughts: Thoughts | None) -> str:
    if thoughts is None:
        return ""
    # onnxruntime-genai does not find a text in a text.
    is_shown = f"place.users == 0 and {_BEFORE} != message.content and {_REASONING}"
    shown = _write(thoughts.opening) + f"{{{{- {_REASONING} -}}}}" + _write(thoughts.closing)
    return _write_if(is_shown, shown, _write(thoughts.empty))


def _write_if(condition: str, then: str, otherwise: str = "") -> str:
    middle = f"{{%- else -%}}{otherwise}" if otherwise else ""
    return f"{{%- if {condition} -%}}{then}{middle}{{%- endif -%}}"


def _refuse(reason: str) -> str:
    return f"{{{{- raise_exception({reason}) -}}}}"


def _write(text: str) -> str:
    """Return Jinja that writes this text."""
    return f"{{{{- {_quote(text)} -}}}}" if text else ""


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return "'" + escaped.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t") + "'"


def _branch_words() -> Iterator[str]:
    yield "if"
    yield from itertools.repeat("elif")
