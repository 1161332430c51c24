"""Calls of GLM-4-9B-chat with All Tools: functions, and three tools that the template describes.

    python                  simple_browser                      cogview
    print(6 * 7)            search("...", recency_days=7)       A cat on the moon.

The message of `python` is code and that of `cogview` a prompt; both may be any text. Therefore they
are calls only at the beginning of a turn, where the model writes a tool's name and no text, and go
on to its end. `simple_browser` has the functions `search`, `mclick` and `open_url`. The arguments
are objects: `{"code": ...}`, `{"prompt": ...}`, and the function as `action` with its parameters,
as in `{"action": "search", "query": ..., "recency_days": 7}`. Calls of functions are JSON, as in
`name_line.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from glm_runtime.text.dialects.dialect import (
    BLANKS,
    NO_HEAD,
    CallBody,
    CallHead,
    match_one,
    skip,
)
from glm_runtime.text.dialects.json_scanner import read_json, write_string
from glm_runtime.text.dialects.name_line import JsonBody, read_name_line, skip_line_end
from glm_runtime.text.dialects.python_call import PythonCallBody
from glm_runtime.text.dialects.python_literals import write_literal

# Stands for the token that begins a turn; no character of a text.
TURN = "\ufdd2"
_BROWSER = "simple_browser"
_ACTIONS = (
    ("search", ("query", "recency_days")),
    ("mclick", ("ids",)),
    ("open_url", ("url",)),
)
_RAW_KEYS = {"python": "code", "cogview": "prompt"}
_OPENINGS = tuple(f"{action}(" for action, _ in _ACTIONS)
RESULTS = {_BROWSER: "browser_result", "cogview": "cogview_result"}
BUILT_IN = (*_RAW_KEYS, _BROWSER)


@dataclass(frozen=True)
class AllToolsCalls:
    """The dialect.

    Attributes:
        names: names of the declared functions.
        built_in: those of `BUILT_IN` that the conversation has.
    """

    names: tuple[str, ...]
    built_in: tuple[str, ...]
    mark = TURN
    mark_text = "\n"
    endings = ()

    def read_head(self, text: str, *, is_first: bool) -> CallHead | None:
        """Read the tool's name and its line end."""
        begin = len(TURN) if text.startswith(TURN) else 0
        heads = list(self._read_heads(text[begin:], is_turn=is_first or bool(begin)))
        for head in heads:
            if head is not None and head.name:
                return CallHead(head.name, begin + head.length, head.has_fence)
        return None if None in heads else NO_HEAD

    def start_body(self, name: str) -> CallBody:
        """Start to read what follows the name."""
        if name in self.names:
            return JsonBody()
        return PythonCallBody(_ACTIONS) if name == _BROWSER else _RawBody(_RAW_KEYS[name])

    def _read_heads(self, text: str, *, is_turn: bool) -> Iterator[CallHead | None]:
        yield read_name_line(text, self.names, ("{",))
        if _BROWSER in self.built_in:
            yield read_name_line(text, (_BROWSER,), _OPENINGS)
        names = tuple(name for name in self.built_in if name in _RAW_KEYS)
        if is_turn and names:
            yield _read_raw_head(text, names)


class _RawBody:
    """A text up to the end of the turn, which is the value of one key."""

    def __init__(self, key: str) -> None:
        self.arguments = [f'{{"{key}": "']
        self.is_certain = False
        self.is_broken = False

    def read(self, text: str) -> int | None:
        """Read up to the next turn."""
        body, mark, _ = text.partition(TURN)
        self.arguments.append(write_string(body)[1:-1])
        self.is_certain = self.is_certain or bool(body.strip())
        if not mark:
            return None
        self.is_broken = not self.end()
        return len(body)

    def end(self) -> bool:
        """Return whether there is a text."""
        if self.is_certain:
            self.arguments.append('"}')
        return self.is_certain


def _read_raw_head(text: str, names: tuple[str, ...]) -> CallHead | None:
    place = skip(text, 0, BLANKS)
    name = match_one(text, place, names)
    if not name:
        return None if name is None else NO_HEAD
    end = skip_line_end(text, place + len(name))
    if end is None:
        return None
    return CallHead(name, end) if end > 0 else NO_HEAD


def write_body(name: str, arguments: str) -> str:
    """Return a call of a built-in tool in the model's own form, from arguments as JSON text.

    Arguments of another form are returned as they are.
    """
    try:
        given = read_json(arguments)
        if not isinstance(given, dict):
            return arguments
        text = _write_browser(given) if name == _BROWSER else given.get(_RAW_KEYS[name])
    except (ValueError, RecursionError):
        return arguments
    return text if isinstance(text, str) else arguments


def _write_browser(given: dict[str, object]) -> str | None:
    action = given.pop("action", None)
    parameters = dict(_ACTIONS).get(str(action))
    if parameters is None:
        return None
    first = parameters[0]
    values = [write_literal(given.pop(first))] if first in given else []
    values += [f"{key}={write_literal(value)}" for key, value in given.items()]
    return f"{action}({', '.join(values)})"
