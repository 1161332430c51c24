"""Grammar rules of an answer that is free until it calls a strict tool.

As soon as the text has the head of such a call, the rest of the call follows the tool's rules, and
after it only further calls may come. A head is what `glm_runtime/text/dialects/` reads as one: it
begins a line, or has a tag before the name, and stands outside of code fences.
"""

import re
from collections.abc import Sequence

from glm_runtime.text.answer import TURN_NAME
from glm_runtime.text.dialects.bare_json import BareJsonCalls
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.dialects.tagged import TaggedCalls
from glm_server.call_rules import write_name

# Regular expressions in Rust's syntax.
_ANY = r"(.|\n)*"
_BLANKS, _SPACES = r"[ \t]*", r"[ \t\r\n]*"
_LINE = r"[ \t\r]*([^ \t\r\n`][^\n]*|`([^`\n][^\n]*)?|``([^`\n][^\n]*)?)?"  # opens no fence
_FENCE = r"[ \t\r]*```[^\n]*\n"
_LINES = rf"({_LINE}\n|{_FENCE}({_LINE}\n)*{_FENCE})*"


def write_free_text(
    dialect: CallDialect, tools: Sequence[str], strict: Sequence[str], *, has_turns: bool
) -> list[str]:
    """Return the rules of text that ends with the answer or with a strict call.

    The first rule is named `free`. The rules of `write_calls` belong to them.

    Args:
        dialect: how the model writes calls.
        tools: names of all tools, in the order of those rules.
        strict: names of the strict tools among them.
        has_turns: whether the vocabulary has the special token that begins a turn.
    """
    before, after = _surround(dialect)
    # In a tag, a name that begins a longer name is one only if white space or a tag follows.
    short = [one for one in strict if not after and _is_beginning(one, tools, dialect)]
    heads = {name: re.escape(write_name(dialect, name)) + after for name in strict}
    closed = "|".join(f"{heads[name]}<" for name in short)
    heads |= {name: heads[name] + r"[ \t\r\n]" for name in short}
    known = "|".join([*heads.values(), *([closed] if closed else [])])
    other = f" & ~(/{_ANY}({before})({closed}){_ANY}/)" if closed else ""
    numbers = {name: tools.index(name) for name in strict}
    first = " | ".join(f"head_{number} body_{number}" for number in numbers.values())
    turns = f"(TEXT {TURN_NAME})* " if has_turns else ""
    return [
        f"free: {turns}(TEXT | ({first}) more_calls)",
        f"TEXT: /{_ANY}/ & ~(/({before})({known}){_ANY}/)",
        *(f"head_{numbers[name]}[lazy]: HEAD_{numbers[name]}" for name in strict),
        *(f"HEAD_{numbers[name]}: /({before}){heads[name]}/{other}" for name in strict),
    ]


def _surround(dialect: CallDialect) -> tuple[str, str]:
    """Return what stands before and after the name in the head of a call."""
    if isinstance(dialect, TaggedCalls):
        return f"{_LINES}{_LINE}<tool_call>{_SPACES}", ""
    if isinstance(dialect, BareJsonCalls):
        return rf'{_LINES}{_BLANKS}\{{{_SPACES}"name"{_SPACES}:{_SPACES}', ""
    return f"{_LINES}{_BLANKS}", rf"{_BLANKS}\r?\n"


def _is_beginning(name: str, tools: Sequence[str], dialect: CallDialect) -> bool:
    written = write_name(dialect, name)
    return any(one != name and write_name(dialect, one).startswith(written) for one in tools)
