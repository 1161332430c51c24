"""Calls of ChatGLM3: the tool's name on a line, and a Python call with literal arguments.

    get_verse
    ```python
    tool_call(reference='Micah 6:8')
    ```

The fence may be missing. Nothing of this is ever run; `python_literals.py` reads it.
"""

from dataclasses import dataclass

from glm_runtime.text.dialects.dialect import FENCE, CallBody, CallHead
from glm_runtime.text.dialects.json_scanner import is_object_text, read_json
from glm_runtime.text.dialects.name_line import read_name_line
from glm_runtime.text.dialects.python_literals import ArgumentScanner, write_literal

_FUNCTION, _QUOTE = "tool_call(", "'"


@dataclass(frozen=True)
class PythonCalls:
    """The dialect, for tools with these names."""

    names: tuple[str, ...]
    mark = mark_text = ""
    endings = (")", FENCE)

    def read_head(self, text: str, *, is_first: bool) -> CallHead | None:
        """Read the tool's name, a line end, blank lines, and one fence."""
        del is_first
        return read_name_line(text, self.names, (_FUNCTION,))

    def start_body(self, name: str) -> CallBody:
        """Start to read the call."""
        del name
        return PythonCallBody(())


def write_body(arguments: str) -> str:
    """Return the call with arguments that are a JSON object; other text is returned as it is."""
    try:
        given = read_json(arguments)
        if not isinstance(given, dict):
            return arguments
        pairs = [f"{key}={write_literal(value, _QUOTE)}" for key, value in given.items()]
    except (ValueError, RecursionError):
        return arguments
    return f"{FENCE}python\n{_FUNCTION}{', '.join(pairs)})\n{FENCE}"


class PythonCallBody:
    """A call of a function; the arguments are an object.

    Args:
        positional: for each function that may be called, the names of its positional parameters;
            the function is the first argument `action`. Without any, the function is not told.
    """

    def __init__(self, positional: tuple[tuple[str, tuple[str, ...]], ...]) -> None:
        self.arguments: list[str] = []
        self.is_certain = True
        self.is_broken = False
        self._positional = dict(positional)
        self._function = ""
        self._scanner: ArgumentScanner | None = None

    def read(self, text: str) -> int | None:
        """Read up to the closing parenthesis."""
        begin = 0
        if self._scanner is None:
            begin = text.find("(") + 1
            self._function += text[: begin - 1] if begin else text
            if not begin:
                return None
            self._scanner = self._start()
        end = self._scanner.read(text[begin:], self.arguments)
        self.is_broken = self._scanner.is_broken
        if end is not None and not self.is_broken:  # it may be nested too deeply for JSON
            self.is_broken = not is_object_text("".join(self.arguments))
        return None if end is None else begin + end

    def end(self) -> bool:
        """Return False: a call that is not closed is not complete."""
        if self._scanner is not None:
            self.arguments.append(self._scanner.rest)
        return False

    def _start(self) -> ArgumentScanner:
        if not self._positional:
            self.arguments.append("{")
            return ArgumentScanner(())
        self.arguments.append(f'{{"action": "{self._function}"')
        return ArgumentScanner(self._positional[self._function], ("action",))
