"""Grammars for answers of a requested form: JSON, calls of tools, or either.

Reasoning before the answer stays free. Read `call_rules.py` for calls, and
`glm_runtime/sampling/structured.py` for how a grammar restricts the tokens.
"""

from collections.abc import Mapping

from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.dialects.dialect import CallDialect
from glm_server.call_rules import Schema, write_calls, write_json


def make_grammar(
    answer: Schema | None,
    tools: Mapping[str, Schema],
    dialect: CallDialect | None,
    *,
    must_call: bool,
    is_single: bool,
) -> Grammar | None:
    """Return the grammar of an answer; `None` if the answer is free.

    Args:
        answer: JSON schema of an answer in text; `None` leaves text free.
        tools: JSON schemas of the arguments of the tools that may be called, by name.
        dialect: how the model writes calls; `None` without tools.
        must_call: whether the answer must be calls.
        is_single: whether only one call is allowed.

    Raises:
        GrammarError: the grammar is too long, or a call cannot be expressed.
    """
    if not must_call and answer is None:
        return None
    if answer is not None and (must_call is False and not tools):
        return Grammar.from_schema(answer)
    lines = [] if must_call or answer is None else [write_json("answer", answer)]
    starts = [line.partition(":")[0] for line in lines]
    if dialect is not None and tools:
        starts.append("calls")
        lines += write_calls(dialect, tools, is_single=is_single)
    return Grammar("lark", "\n".join([f"start: {' | '.join(starts)}", *lines]))
