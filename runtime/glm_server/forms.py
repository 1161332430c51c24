"""Grammars for answers of a requested form: JSON, calls of tools, either, or text and strict calls.

Reasoning before the answer stays free. Read `call_rules.py` for calls, `free_text.py` for text
before them, and `glm_runtime/sampling/structured.py` for how a grammar restricts the tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.errors import GrammarError
from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.dialects.dialect import CallDialect
from glm_server.call_rules import Schema, write_calls, write_json
from glm_server.free_text import write_free_text


@dataclass(frozen=True)
class CallRules:
    """Which calls an answer may have.

    Attributes:
        must_call: whether the answer must be calls.
        is_single: whether only one call is allowed.
        strict: names of the tools whose calls follow their schemas, also after free text.
        has_turns: whether the vocabulary has the special token that begins a turn.
    """

    must_call: bool = False
    is_single: bool = False
    strict: Sequence[str] = ()
    has_turns: bool = False


def make_grammar(
    answer: Schema | None,
    tools: Mapping[str, Schema],
    dialect: CallDialect | None,
    rules: CallRules,
) -> Grammar | None:
    """Return the grammar of an answer; `None` if the answer is free.

    Args:
        answer: JSON schema of an answer in text; `None` leaves text free.
        tools: JSON schemas of the arguments of the tools that may be called, by name.
        dialect: how the model writes calls; `None` without tools.
        rules: which calls the answer may have.

    Raises:
        GrammarError: the grammar is too long, or a call cannot be expressed.
    """
    if dialect is None or not tools:
        return None if answer is None else Grammar.from_schema(answer)
    is_free = answer is None and not rules.must_call
    if is_free and not rules.strict:
        return None
    schemas = {f"tool {name!r:.80}": schema for name, schema in tools.items()}
    if answer is not None:
        schemas["response format"] = answer
    parts = {name: _read_part(name, schema) for name, schema in schemas.items()}
    calls = write_calls(dialect, tools, is_single=rules.is_single, has_turns=rules.has_turns)
    if is_free:
        names = list(tools)
        text = write_free_text(dialect, names, rules.strict, has_turns=rules.has_turns)
        source = "\n".join(["start: free", *text, *calls])
        return Grammar("lark", source, has_free_text=True, parts=parts)
    lines = [] if answer is None or rules.must_call else [write_json("answer", answer)]
    start = "start: answer | calls" if lines else "start: calls"
    return Grammar("lark", "\n".join([start, *lines, *calls]), parts=parts)


def _read_part(name: str, schema: Schema) -> Grammar:
    try:
        return Grammar.from_schema(schema)
    except GrammarError as error:
        raise GrammarError(f"{name}: {error}") from error
