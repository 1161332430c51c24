"""Checks each operation of a template before it runs, so that no single one takes long.

An operation that is not listed here is refused, so that its cost need not be known. Read
`template_limits.py` before.
"""

import re
from collections.abc import Iterable, Mapping, Sized
from string import Formatter
from types import MappingProxyType
from typing import Any

from jinja2.exceptions import SecurityError

from glm_runtime.text.template_limits import (
    Size,
    Steps,
    require_bits,
    require_items,
    require_length,
    require_size,
)

# Of the template itself; released ones have 20,000. Compiling 100,000 takes 2 to 7 seconds.
MAX_SOURCE_CHARACTERS = 200_000
_MAX_WIDTH = 10_000
_MAX_PATTERN = 1000  # characters of a format, date format or search pattern whose cost multiplies
# str.isspace and str.splitlines, of Python 3.11 to 3.14
_SPACES = "".join(c for c in map(chr, range(0x3001)) if c.isspace())
_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_PERCENT = re.compile(r"%(?:\([^()]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")
_DIGITS = re.compile(r"\d+")


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WIDE = _words("batch center expandtabs indent ljust rjust round slice to_bytes tojson zfill")
# Methods and filters that may compare every character with the whole pattern.
_SEARCHING = _words("lstrip rfind rindex rpartition rstrip strip trim")
# Filters that go over each item or character of their value.
_ITERATING = _words(
    """
    batch groupby items join list map max min reject rejectattr select selectattr slice sort sum
    title unique urlencode wordcount xmlattr
    """
)
# Methods and filters that return an existing value, whose items are counted already.
_PASSING = _words("attr d default first get last max min")
FILTERS = _ITERATING | _words(
    """
    abs attr capitalize center count d default dictsort e escape filesizeformat first float
    forceescape format indent int last length lower replace reverse round safe string tojson trim
    truncate upper
    """
)
METHODS: Mapping[type, frozenset[str]] = MappingProxyType(
    {
        str: _words(
            """
            capitalize casefold center count encode endswith expandtabs find format format_map index
            isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric isprintable
            isspace istitle isupper join ljust lower lstrip maketrans partition removeprefix
            removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines
            startswith strip swapcase title translate upper zfill
            """
        ),
        bytes: frozenset(["decode"]),
        int: _words("bit_count bit_length conjugate is_integer to_bytes"),
        float: _words("conjugate is_integer"),
        list: _words("copy count index"),
        tuple: _words("count index"),
        dict: _words("copy get items keys values"),
        type: frozenset(),
    }
)


def list_sources(name: str, values: list[Any]) -> list[Any]:
    """Return what a new value is made from; nothing if the operation returns an existing one."""
    return [] if name in _PASSING else values


def check_filter(steps: Steps, name: str, values: list[Any]) -> None:
    """Check a filter before it runs.

    Args:
        steps: of this rendering.
        name: name of the filter.
        values: its value and its arguments.

    Raises:
        SecurityError: the filter is not allowed, or would make too much.
    """
    if name not in FILTERS:
        raise SecurityError(f"it uses the filter {name[:40]!r}")
    applied, given = values[0], values[1:]
    size = steps.find_size(applied)
    if name in _ITERATING:
        require_items(size.characters if isinstance(applied, str | bytes) else size.items)
        _require_width(name, given)
    if name == "sum" and not all(isinstance(one, int | float | str | None) for one in given):
        raise SecurityError("it adds up lists")
    if name in ("format", "indent") and not isinstance(applied, str):
        raise SecurityError(f"it applies {name} to a value that is not a text")
    if name == "format":
        _check_format(steps, applied, given)
    elif name == "tojson":
        _check_json(name, size, given)
    elif name == "join":
        _require_joined(steps, given, applied)
    else:
        _check_call(steps, name, applied, given)


def check_method(steps: Steps, owner: object, name: str, given: list[Any]) -> None:
    """Check a method of a built-in type before it runs; see `check_filter`."""
    for kind, names in METHODS.items():
        if isinstance(owner, kind) and name not in names:
            raise SecurityError(f"it calls {name[:40]} of a value of type {kind.__name__}")
    if name.startswith("format"):
        _check_format(steps, str(owner), given)
    elif name == "join":
        _require_joined(steps, [owner], given[0] if given else ())
    elif isinstance(owner, str | bytes | int):
        _check_call(steps, name, owner, given)


def check_date_format(pattern: object) -> None:
    """Check the pattern of a date, whose fields may have a width: `%99d` has 99 characters."""
    if not isinstance(pattern, str) or len(pattern) > _MAX_PATTERN:
        raise SecurityError(f"it formats a date by more than {_MAX_PATTERN} characters")
    if _add_digits(pattern) > _MAX_WIDTH:
        raise SecurityError(f"it formats a date with a width above {_MAX_WIDTH}")


def check_operator(steps: Steps, operator: str, left: Any, right: Any) -> None:
    """Check an operator that makes a large text, list or number of small ones."""
    if operator in ("*", "**"):
        _check_product(operator, left, right)
    elif operator == "%" and isinstance(left, str | bytes):
        _check_format(steps, left if isinstance(left, str) else left.decode("latin-1"), [right])


def _check_call(steps: Steps, name: str, applied: Any, given: list[Any]) -> None:
    """Check a filter or method of a text or number."""
    length = len(applied) if isinstance(applied, str | bytes) else 0
    longest = max(_lengths(given), default=0)
    if name in _WIDE:
        _require_width(name, given)
    if name in ("indent", "expandtabs"):
        stops = _count_any(applied, _BREAKS + "\t")
        require_length((stops + 1) * max([longest, *_integers(given), 8]))
    elif name == "replace" and len(given) > 1:
        require_length(str(applied).count(str(given[0])) * len(str(given[1])))
    elif name == "translate":
        require_length(length * (1 + sum(steps.find_size(one).characters for one in given)))
    elif name in _SEARCHING and longest > _MAX_PATTERN:
        raise SecurityError(f"{name} is given more than {_MAX_PATTERN} characters")
    elif name in ("encode", "decode") and any(map(_is_odd_codec, given)):
        raise SecurityError(f"{name} is given an encoding other than UTF-8")
    elif name in ("split", "rsplit", "splitlines"):
        require_items(_count_parts(name, applied, given))
    if name == "rsplit" and longest > _MAX_PATTERN:
        raise SecurityError(f"{name} is given more than {_MAX_PATTERN} characters")


def _count_parts(name: str, text: str, given: list[Any]) -> int:
    """Return at least the number of parts into which a text is split."""
    separators = [one for one in given if isinstance(one, str) and one]
    if name == "splitlines":
        return 1 + _count_any(text, _BREAKS)
    return 1 + (text.count(separators[0]) if separators else _count_any(text, _SPACES))


def _is_odd_codec(value: object) -> bool:
    plain = ("utf8", "utf-8", "ascii", "strict", "ignore", "replace")
    return isinstance(value, str) and value.lower() not in plain


def _require_joined(steps: Steps, separators: list[Any], items: Any) -> None:
    size = steps.find_size(items)
    count = len(items) if isinstance(items, str) else size.items
    require_length(size.characters + count * max(_lengths(separators), default=0))


def _check_json(name: str, size: Size, given: list[Any]) -> None:
    _require_width(name, given)
    widths = [*_integers(given), *_lengths(given)]
    widths += [len(part) for one in given if isinstance(one, tuple | list) for part in one]
    # Each item is on a line of its own, with as many indents as it is deep.
    require_length(size.characters + size.items * (2 + size.depth * max(widths, default=0)))


def _check_product(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length()
        require_bits(bits + (right.bit_length() if operator == "*" else 0))
        return
    for one, times in ((left, right), (right, left)):
        if isinstance(one, str | bytes | list | tuple) and isinstance(times, int):
            require_length(len(one) * times)


def _check_format(steps: Steps, text: str, given: list[Any]) -> None:
    """Check a format with `%` or `{}`: the widths in it, and how often a value is repeated."""
    fields = text.count("%") + text.count("{")
    values = [steps.find_size(one) for one in given]
    for size in values:
        require_size(size)
    sizes = sum(size.characters + size.items for size in values)
    require_length(len(text) + fields * sizes)
    widths = [part for found in _PERCENT.finditer(text) for part in found.groups() if part]
    widths += [spec or "" for _, _, spec, _ in _parse_braces(text)]
    is_given = any("*" in width or "{" in width for width in widths)
    if is_given or _add_digits(" ".join(widths)) > _MAX_WIDTH:
        raise SecurityError("it formats with a large width, or with a width that is an argument")


def _parse_braces(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(Formatter().parse(text))
    except ValueError:  # it is a format with `%`, or no format at all
        return []


def _add_digits(text: str) -> int:
    return sum(int(digits[:9]) for digits in _DIGITS.findall(text))


def _integers(values: Iterable[object]) -> list[int]:
    return [int(value) for value in values if isinstance(value, int)]


def _lengths(values: Iterable[object]) -> list[int]:
    return [len(value) for value in values if isinstance(value, str | bytes)]


def _require_width(name: str, given: list[Any]) -> None:
    sizes = [len(one) for one in given if isinstance(one, Sized)]
    if max([*_integers(given), *sizes], default=0) > _MAX_WIDTH:
        raise SecurityError(f"{name} is given a width above {_MAX_WIDTH}")


def _count_any(text: object, characters: str) -> int:
    return sum(map(text.count, characters)) if isinstance(text, str) else 0
