"""Grammars for answers of a requested form: JSON, calls of tools, or either.

Reasoning before the answer stays free. Read `glm_runtime/sampling/structured.py` for how a grammar
restricts the tokens.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from glm_runtime.sampling.structured import Grammar

Schema = Mapping[str, Any]


def make_grammar(
    answer: Schema | None, tools: Mapping[str, Schema], *, must_call: bool, is_single: bool
) -> Grammar | None:
    """Return the grammar of an answer; `None` if the answer is free.

    Args:
        answer: JSON schema of an answer in text; `None` leaves text free.
        tools: JSON schemas of the arguments of the tools that may be called, by name.
        must_call: whether the answer must be calls.
        is_single: whether only one call is allowed.

    Raises:
        GrammarError: the grammar is too long.
    """
    if not must_call and answer is None:
        return None
    if answer is not None and (must_call is False and not tools):
        return Grammar.from_schema(answer)
    lines = [] if must_call or answer is None else [_rule("answer", answer)]
    starts = [line.partition(":")[0] for line in lines]
    if tools:
        starts.append("calls")
        lines += _write_calls(tools, is_single=is_single)
    return Grammar("lark", "\n".join([f"start: {' | '.join(starts)}", *lines]))


def _write_calls(tools: Mapping[str, Schema], *, is_single: bool) -> Sequence[str]:
    """Write the rules of calls in GLM-4-0414's format: a name, and JSON arguments on a new line."""
    names = [f"call_{index}" for index in range(len(tools))]
    calls = "calls: call" if is_single else 'calls: call ("\\n" call)*'
    rules = [calls, f"call: {' | '.join(names)}"]
    for name, (tool, schema) in zip(names, tools.items(), strict=True):
        rules.append(f"{name}: {json.dumps(tool + chr(10))} arguments_{name}")
        rules.append(_rule(f"arguments_{name}", schema))
    return rules


def _rule(name: str, schema: Schema) -> str:
    return f"{name}: %json {json.dumps(dict(schema))}"
