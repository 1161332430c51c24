"""Reads the arguments of a Python call while they arrive, and writes them as a JSON object.

The arguments are literals: strings without a prefix, numbers as JSON writes them, `True`, `False`,
`None`, lists, and dictionaries with strings as keys. All else is refused, and nothing is evaluated.
"""

import json
import re
from collections.abc import Sequence
from enum import Enum, auto

from glm_runtime.text.dialects.json_scanner import write_string

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[A-Za-z_\u0080-\U0010ffff][A-Za-z_0-9\u0080-\U0010ffff]*")
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_SPACES = " \t\r\n"
_MARKS = frozenset("'\"()[]{}=:,")
_CLOSING = {"[": "]", "{": "}"}
_ESCAPED = dict(zip("abfnrtv\\'\"\n", [*"\a\b\f\n\r\t\v\\'\"", ""], strict=True))
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}


class _Expected(Enum):
    ITEM = auto()  # an argument, an element or a key; or the end
    EQUALS = auto()
    COLON = auto()
    VALUE = auto()
    COMMA = auto()  # or the end


class ArgumentScanner:
    """Reads arguments from the character after the opening parenthesis on.

    Attributes:
        is_broken: whether the text cannot be such arguments.
        rest: text that the JSON leaves out, if the arguments are broken or not complete.
    """

    def __init__(self, positional: Sequence[str], before: Sequence[str] = ()) -> None:
        """Start to read.

        Args:
            positional: names of the parameters that may be given without a name, in order.
            before: names that the object has already.
        """
        self.is_broken = False
        self.rest = ""
        self._positional = list(positional)
        self._names = set(before)
        self._open = [")"]
        self._counts = [len(before)]  # items of each nested list or object
        self._expected = _Expected.ITEM
        self._quote = ""  # of the string that is being read
        self._is_key = False
        self._escape = ""
        self._word = ""
        self._parts: list[str] = []

    def read(self, text: str, parts: list[str]) -> int | None:
        """Take new text, and add its JSON to `parts`; return the position after the parenthesis."""
        self._parts = parts
        for place, character in enumerate(text):
            if not self._take(character):
                self.is_broken = True
                self.rest = self._escape + self._word + text[place:]
                return place
            if not self._open:
                return place + 1
        self.rest = self._escape + self._word
        return None

    def _take(self, character: str) -> bool:
        """Take one character; return False if it is wrong here."""
        if self._quote:
            return self._take_in_string(character)
        if character not in _MARKS and character not in _SPACES:
            self._word += character
            return self._expected in (_Expected.ITEM, _Expected.VALUE)
        if self._word and not self._end_word(character):
            return False
        return character in _SPACES or self._take_mark(character)

    def _take_mark(self, character: str) -> bool:
        if character in "'\"":
            return self._begin_string(character)
        if character in "[{":
            return self._begin_nested(character)
        if character in ")]}":
            return self._end_nested(character)
        return self._separate(character)

    def _end_word(self, after: str) -> bool:
        """Take a word as a constant, a number, or a parameter's name."""
        word = self._word
        value = _CONSTANTS.get(word, word if _NUMBER.fullmatch(word) else None)
        if value is not None and after not in "'\"=([{":
            return self._begin_value() and self._write_word(value, _Expected.COMMA)
        is_name = self._expected is _Expected.ITEM and self._open[-1] == ")"
        if not is_name or value is not None or not _NAME.fullmatch(word) or word in self._names:
            return False
        self._positional.clear()
        self._names.add(word)
        return self._write_word(self._comma() + write_string(word) + ": ", _Expected.EQUALS)

    def _write_word(self, text: str, expected: _Expected) -> bool:
        self._word = ""
        return self._write(text, expected)

    def _begin_value(self) -> bool:
        """Write what stands before a value; return False if none may stand here."""
        if self._expected is _Expected.VALUE:
            return True
        if self._expected is not _Expected.ITEM or self._open[-1] == "}":
            return False
        if self._open[-1] == "]":
            return self._write(self._comma(), _Expected.VALUE)
        if not self._positional or self._positional[0] in self._names:
            return False
        name = self._positional.pop(0)
        self._names.add(name)
        return self._write(self._comma() + write_string(name) + ": ", _Expected.VALUE)

    def _begin_string(self, quote: str) -> bool:
        self._is_key = self._expected is _Expected.ITEM and self._open[-1] == "}"
        if not self._is_key and not self._begin_value():
            return False
        self._quote = quote
        return self._write((self._comma() if self._is_key else "") + '"', _Expected.VALUE)

    def _begin_nested(self, character: str) -> bool:
        if not self._begin_value():
            return False
        self._open.append(_CLOSING[character])
        self._counts.append(0)
        return self._write(character, _Expected.ITEM)

    def _end_nested(self, character: str) -> bool:
        if self._expected not in (_Expected.ITEM, _Expected.COMMA) or self._open[-1] != character:
            return False
        self._open.pop()
        self._counts.pop()
        return self._write("}" if character == ")" else character, _Expected.COMMA)

    def _separate(self, character: str) -> bool:
        if character == "," and self._expected is _Expected.COMMA:
            self._expected = _Expected.ITEM
            return True
        if character == ":" and self._expected is _Expected.COLON:
            return self._write(": ", _Expected.VALUE)
        is_equals = character == "=" and self._expected is _Expected.EQUALS
        self._expected = _Expected.VALUE
        return is_equals

    def _take_in_string(self, character: str) -> bool:
        if self._escape:
            return self._take_escape(character)
        if character == "\\":
            self._escape = "\\"
            return True
        if character == self._quote:
            self._quote = ""
            return self._write('"', _Expected.COLON if self._is_key else _Expected.COMMA)
        return character not in "\r\n" and self._write_text(character)

    def _take_escape(self, character: str) -> bool:
        kind, digits = self._escape[1:2], self._escape[2:]
        if kind in _HEX_LENGTHS and kind:
            self._escape += character
            is_valid = character in "0123456789abcdefABCDEF"
            is_whole = len(digits) + 1 == _HEX_LENGTHS[kind]
            return is_valid and (not is_whole or self._write_code(digits + character, 16))
        if kind:  # the digits of an octal number, of which there are three at most
            if character in "01234567" and len(digits) < 2:
                self._escape += character
                return len(digits) < 1 or self._write_code(self._escape[1:], 8)
            return self._write_code(kind + digits, 8) and self._take_in_string(character)
        if character in _HEX_LENGTHS or character in "01234567":
            self._escape += character
            return True
        self._escape = ""
        text = _ESCAPED.get(character, f"\\{character}")
        return character not in "N\r" and self._write_text(text)

    def _write_code(self, digits: str, base: int) -> bool:
        """Write a character by its code point; halves of surrogate pairs are no characters."""
        code, self._escape = int(digits, base), ""
        return code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF and self._write_text(chr(code))

    def _write_text(self, text: str) -> bool:
        self._parts.append(write_string(text)[1:-1])
        return True

    def _comma(self) -> str:
        """Count an item of the innermost list or object; return what stands before it."""
        self._counts[-1] += 1
        return ", " if self._counts[-1] > 1 else ""

    def _write(self, text: str, expected: _Expected) -> bool:
        self._parts.append(text)
        self._expected = expected
        return True


def write_literal(value: object, quote: str = '"') -> str:
    """Write a value of JSON as a Python literal, with this quote around strings."""
    if isinstance(value, str):
        text = write_string(value)
        if quote == '"':
            return text
        inner = text[1:-1].replace('\\"', '"')
        return quote + inner.replace(quote, f"\\{quote}") + quote
    if isinstance(value, list):
        return "[" + ", ".join(write_literal(one, quote) for one in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{write_literal(k, quote)}: {write_literal(v, quote)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return str(value) if value is None or isinstance(value, bool) else json.dumps(value)
