"""Grammar rules of calls in the dialects in which models write them.

Rules are in llguidance's Lark syntax. Where the arguments are JSON, they match the tool's schema as
a whole. In the two other dialects the names and the types of arguments match. Read
`glm_runtime/text/dialects/` for how calls are read, and `free_text.py` for calls after text.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from glm_runtime.errors import GrammarError
from glm_runtime.sampling.structured import JSON_STYLE
from glm_runtime.text.answer import TURN_NAME
from glm_runtime.text.dialects.all_tools import AllToolsCalls
from glm_runtime.text.dialects.argument_types import list_types
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.dialects.python_call import PythonCalls
from glm_runtime.text.dialects.python_literals import write_literal
from glm_runtime.text.dialects.tagged import TaggedCalls

Schema = Mapping[str, Any]
_TAGGED_CHARACTER = "[^<]"
_PYTHON_CHARACTER = r"([^'\\\n\r]|\\['\\n])"


def write_calls(
    dialect: CallDialect, tools: Mapping[str, Schema], *, is_single: bool, has_turns: bool
) -> list[str]:
    """Return the rules of one or several calls.

    The first rule is named `calls`, `more_calls` is what may follow a call, and `body_0` is what
    follows the name of the first tool.

    Args:
        dialect: how the model writes calls.
        tools: JSON schemas of the arguments of the tools that may be called, by name.
        is_single: whether only one call is allowed.
        has_turns: whether the vocabulary has the special token that begins a turn.

    Raises:
        GrammarError: the dialect cannot express a schema.
    """
    head, end, write = _WRITERS[type(dialect)]
    names = [f"call_{index}" for index in range(len(tools))]
    between = f'("\\n" | {TURN_NAME})' if has_turns else '"\\n"'
    more = '""' if is_single else f"({between} call)*"
    rules = ["calls: call more_calls", f"more_calls: {more}", f"call: {' | '.join(names)}"]
    for index, (tool, schema) in enumerate(tools.items()):
        body = f"body_{index}"
        rules.append(f"call_{index}: {_quote(head + write_name(dialect, tool) + end)} {body}")
        rules += write(body, schema)
    return rules


def write_name(dialect: CallDialect, tool: str) -> str:
    """Return the name of a tool as a call has it."""
    return json.dumps(tool) if isinstance(dialect, BareJsonCalls) else tool


def write_json(rule: str, schema: Schema) -> str:
    """Return the rule of JSON that matches a schema, with the white space that GLM writes."""
    return f"{rule}: %json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"


def _write_object(rule: str, schema: Schema) -> Sequence[str]:
    return [write_json(rule, schema)]


def _write_bare(rule: str, schema: Schema) -> Sequence[str]:
    arguments = f"{rule}_arguments"
    head = _quote(', "arguments": ')
    return [f'{rule}: {head} {arguments} "}}"', write_json(arguments, schema)]


def _write_tagged(rule: str, schema: Schema) -> Sequence[str]:
    parts, rules = ['"\\n"?'], []
    for number, (key, value) in enumerate(_list_properties(schema)):
        argument = f"{rule}_{number}"
        head = _quote(f"<arg_key>{key}</arg_key>\n<arg_value>")
        types, texts = list_types(schema, key), _list_texts(value)
        if texts:
            body = f"({' | '.join(map(_quote, texts))})"
        elif types is None or "string" in types:
            body = f"/{_TAGGED_CHARACTER}{_count_characters(value)}/"
        else:
            body = f"{argument}_json"
            rules.append(write_json(body, _with_definitions(value, schema)))
        rules.append(f"{argument}: {head} {body} {_quote(f'</arg_value>{chr(10)}')}")
        parts.append(argument if key in schema.get("required", ()) else f"{argument}?")
    return [f"{rule}: {' '.join(parts)} {_quote('</tool_call>')}", *rules]


def _write_python(rule: str, schema: Schema) -> Sequence[str]:
    required: list[str] = []
    optional: list[str] = []
    rules: list[str] = []
    for number, (key, value) in enumerate(_list_properties(schema)):
        argument = f"{rule}_{number}"
        rules += _write_python_argument(argument, key, value, schema)
        (required if key in schema.get("required", ()) else optional).append(argument)
    rest = [f'(", " {one})?' for one in optional]
    if required or not optional:
        arguments = " ".join(['", "'.join(f" {one} " for one in required), *rest])
    else:  # any of them may come first
        starts = [" ".join([one, *rest[place + 1 :]]) for place, one in enumerate(optional)]
        arguments = f"({' | '.join(starts)})?"
    head, end = _quote("```python\ntool_call("), _quote(")\n```")
    return [f"{rule}: {head} {arguments} {end}", *rules]


def _write_python_argument(argument: str, key: str, value: object, schema: Schema) -> Iterator[str]:
    types, texts = list_types(schema, key), _list_texts(value)
    kinds = {"string"} if types is None else set(types)
    text = f"/'{_PYTHON_CHARACTER}{_count_characters(value)}'/"
    bodies = {"string": text, "boolean": '("True" | "False")', "null": '"None"'}
    if texts:
        body = f"({' | '.join(_quote(write_literal(text, chr(39))) for text in texts)})"
    elif kinds == {"number"}:
        body = f"{argument}_json"
        yield write_json(body, _with_definitions(value, schema))
    elif kinds <= bodies.keys():
        body = f"({' | '.join(bodies[kind] for kind in sorted(kinds))})"
    else:
        raise GrammarError(
            f"the argument {key!r} has the types {', '.join(sorted(kinds))}, which cannot be "
            "required of a model that writes calls in Python; let it choose whether to call."
        )
    yield f"{argument}: {_quote(f'{key}=')} {body}"


def _list_properties(schema: Schema) -> list[tuple[str, object]]:
    properties = schema.get("properties")
    return list(properties.items()) if isinstance(properties, Mapping) else []


def _list_texts(schema: object) -> list[str]:
    """Return the texts that a schema of one argument lists, if it lists nothing else."""
    values = schema.get("enum") if isinstance(schema, Mapping) else None
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        return []
    return values


def _count_characters(schema: object) -> str:
    """Return the end of a regular expression: how many characters a schema allows."""
    limits = schema if isinstance(schema, Mapping) else {}
    most = limits.get("maxLength", "")
    return f"{{{limits.get('minLength', 0)},{most}}}"


def _with_definitions(value: object, schema: Schema) -> Schema:
    """Return the schema of one argument with the definitions that it may refer to."""
    shared = {name: schema[name] for name in ("$defs", "definitions") if name in schema}
    return {**shared, **value} if isinstance(value, Mapping) else shared


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# What stands before and after the name of a tool, and what writes the rule of the rest.
_Writer = tuple[str, str, Callable[[str, Schema], Sequence[str]]]
_WRITERS: Mapping[type, _Writer] = MappingProxyType(
    {
        AllToolsCalls: ("", "\n", _write_object),
        BareJsonCalls: ('{"name": ', "", _write_bare),
        NameLineCalls: ("", "\n", _write_object),
        PythonCalls: ("", "\n", _write_python),
        TaggedCalls: ("<tool_call>", "", _write_tagged),
    }
)
