"""Reads a JSON object character by character, and notices the first one that cannot be JSON."""

import json
import re
from enum import Enum, auto

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CONSTANTS = frozenset({"true", "false", "null"})
_WORD = frozenset("+-.0123456789eEtrufalsn")
_SPACES = " \t\r\n"
_ESCAPES = '"\\/bfnrtu'
_HEX = "0123456789abcdefABCDEF"


class _Expected(Enum):
    VALUE = auto()
    VALUE_OR_END = auto()  # after "["
    KEY = auto()
    KEY_OR_END = auto()  # after "{"
    COLON = auto()
    COMMA_OR_END = auto()


_VALUES = (_Expected.VALUE, _Expected.VALUE_OR_END)
_KEYS = (_Expected.KEY, _Expected.KEY_OR_END)
_ENDS = (_Expected.VALUE_OR_END, _Expected.KEY_OR_END, _Expected.COMMA_OR_END)


class JsonScanner:
    """Finds the end of a JSON object that begins with the first character.

    Attributes:
        is_broken: whether the text cannot be a JSON object.
        has_entry: whether a key or the end of the object follows its brace.
    """

    def __init__(self) -> None:
        self.is_broken = False
        self.has_entry = False
        self._open: list[str] = []
        self._expected = _Expected.VALUE
        self._is_string = False
        self._escape = ""  # an escape in a string that is not complete
        self._word = ""  # a number or constant that is not complete

    def find_end(self, text: str) -> int | None:
        """Take new text; return the position after the object, or that of a wrong character."""
        for place, character in enumerate(text):
            self._take(character)
            if self.is_broken:
                return place
            if not self._open:
                return place + 1
        return None

    def _take(self, character: str) -> None:
        if self._is_string:
            self._take_in_string(character)
        elif character in _WORD and (self._word or self._expected in _VALUES) and self._open:
            self._word += character
        elif not self._end_word():
            self.is_broken = True
        elif character not in _SPACES or not self._open:
            self.is_broken = not self._take_mark(character)

    def _take_in_string(self, character: str) -> None:
        if self._escape:
            self._escape += character
            digits = self._escape[2:]
            is_valid = character in (_HEX if digits else _ESCAPES)
            self.is_broken = not is_valid
            if len(self._escape) == (6 if self._escape[1] == "u" else 2):
                self._escape = ""
        elif character == "\\":
            self._escape = "\\"
        elif character == '"':
            self._is_string = False
        elif character < " ":
            self.is_broken = True

    def _end_word(self) -> bool:
        """End a number or constant; return False if it is none."""
        word, self._word = self._word, ""
        if not word:
            return True
        self._expected = _Expected.COMMA_OR_END
        return word in _CONSTANTS or _NUMBER.fullmatch(word) is not None

    def _take_mark(self, character: str) -> bool:
        """Take a character outside of strings and words; return False if it is wrong here."""
        if character == '"':
            return self._begin_string()
        if character in "{[":
            return self._begin_nested(character)
        if character in "}]":
            return self._end_nested(character)
        wanted = {":": _Expected.COLON, ",": _Expected.COMMA_OR_END}.get(character)
        if wanted is not self._expected:
            return False
        is_key = character == "," and self._open[-1] == "}"
        self._expected = _Expected.KEY if is_key else _Expected.VALUE
        return True

    def _begin_string(self) -> bool:
        if not self._open or self._expected not in _VALUES + _KEYS:
            return False
        is_key = self._expected in _KEYS
        self._expected = _Expected.COLON if is_key else _Expected.COMMA_OR_END
        self._is_string = self.has_entry = True
        return True

    def _begin_nested(self, character: str) -> bool:
        is_object = character == "{"
        if self._expected not in _VALUES or not (is_object or self._open):
            return False
        self._open.append("}" if is_object else "]")
        self._expected = _Expected.KEY_OR_END if is_object else _Expected.VALUE_OR_END
        return True

    def _end_nested(self, character: str) -> bool:
        if self._expected not in _ENDS or self._open.pop() != character:
            return False
        self.has_entry, self._expected = True, _Expected.COMMA_OR_END
        return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_json(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON; `NaN` and `Infinity` are not, either.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant)


def is_object_text(text: str) -> bool:
    """Return whether a text is a JSON object."""
    try:
        return isinstance(read_json(text), dict)
    except (ValueError, RecursionError):
        return False


def write_string(text: str) -> str:
    """Return a JSON string, in which only quotes, backslashes and controls are escaped."""
    return json.dumps(text, ensure_ascii=False)
