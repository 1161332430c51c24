"""Declares an option of a settings dataclass once: its range and its help line, on the field.

`check_options` validates by these declarations, and `cli/options.py` makes the command line's
options of them. The field itself gives name, type and default.
"""

import math
import sys
from collections.abc import Hashable, Iterator
from dataclasses import Field, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeVar, cast, get_args, get_type_hints

from glm_runtime.errors import SamplingError

_Value = TypeVar("_Value")
_KEY = "option"
_LARGEST = sys.float_info.max  # whole numbers of Python may be larger
_KIND_NAMES: dict[type[object], str] = {
    bool: "True or False",
    Integral: "a whole number",
    Real: "a number",
}


@dataclass(frozen=True)
class Option:
    """What a settings field means and which values it may have.

    Attributes:
        help: one sentence, as `--help` shows it.
        minimum: the smallest value.
        maximum: the largest value.
        is_above: the minimum itself is not allowed.
        flag: the name on the command line without dashes; "" derives it from the field's name.
        advice: what to do about a value outside the range.
    """

    help: str
    minimum: float = -math.inf
    maximum: float = math.inf
    is_above: bool = False
    flag: str = ""
    advice: str = "choose a value in that range"

    def allows(self, value: float) -> bool:
        """Return whether the value is finite, also as a float, and in the range."""
        is_enough = value > self.minimum if self.is_above else value >= self.minimum
        return abs(value) <= _LARGEST and is_enough and value <= self.maximum

    @property
    def range(self) -> str:
        """The range in words, for an error."""
        has_maximum = math.isfinite(self.maximum)
        if self.minimum == -math.inf:
            return "a finite number"
        if self.is_above:
            return f"a number above {self.minimum}" + f" and at most {self.maximum}" * has_maximum
        if has_maximum:
            return f"a number from {self.minimum} to {self.maximum}"
        return f"{self.minimum} or more"


class UnsetFloat(float):
    """A number in place of a setting that was left out; it changes nothing."""


class UnsetInt(int):
    """The same for whole numbers."""


def is_unset(value: object) -> bool:
    """Return whether a setting was left out."""
    return isinstance(value, UnsetFloat | UnsetInt)


def replace_none(settings: Any) -> None:
    """Take `None` as left out, in the `__post_init__` of a frozen dataclass with options."""
    for one, _ in list_options(settings):
        if is_unset(one.default) and getattr(settings, one.name) is None:
            object.__setattr__(settings, one.name, one.default)


def declare(default: _Value, option: Option) -> _Value:
    """Make a dataclass field with a default and its option."""
    return field(default=default, metadata={_KEY: option})


def list_options(record: Any) -> Iterator[tuple[Field[Any], Option]]:
    """Yield the fields of a settings class, or of one object of it, that declare an option."""
    for one in fields(record):
        if _KEY in one.metadata:
            yield one, one.metadata[_KEY]


def find_option(record: Any, name: str) -> Option:
    """Return the option that a field declares."""
    return next(option for one, option in list_options(record) if one.name == name)


def check_options(settings: object, prefix: str = "") -> None:
    """Refuse numbers outside their range, and what is no number; `None` passes where it is allowed.

    Args:
        settings: an object of a dataclass with options.
        prefix: stands before the fields' names in the error.

    Raises:
        SamplingError: names the option, its value and its range.
    """
    kinds = _list_kinds(cast(Hashable, type(settings)))
    for one, option in list_options(settings):
        value, kind = getattr(settings, one.name), kinds[one.name]
        if kind is None or (value is None and one.default is None):
            continue
        is_number = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if not is_number or (kind is not bool and not option.allows(value)):
            expected = option.range if is_number else _KIND_NAMES[kind]
            raise SamplingError(
                f"{prefix}{one.name} is {_show(value)} where {expected} is expected; "
                f"{option.advice}."
            )


def _show(value: object) -> str:
    """Describe a wrong value; Python refuses to write very large numbers."""
    is_large = isinstance(value, int) and abs(value) > _LARGEST
    return "a number above 1e308" if is_large else repr(value)


@cache
def _list_kinds(record: Hashable) -> dict[str, type[object] | None]:
    """Return the kind of number of every field; `None` for those that hold no number."""
    kinds = {bool: bool, int: Integral, float: Real}
    hints = get_type_hints(record).items()
    return {name: kinds.get((get_args(hint) or (hint,))[0]) for name, hint in hints}
