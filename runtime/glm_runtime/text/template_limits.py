"""Limits of one rendering: of its time, and of the size and depth of every value that it makes.

All values together fit into `_MAX_BYTES`, also those that are dropped again. This file knows
nothing about Jinja's operations; `template_operations.py` checks them before they run.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

# A prompt of a million tokens has about five million characters, and a thousand messages take about
# ten thousand steps. Both limits are reached within seconds.
MAX_CHARACTERS = 20_000_000
MAX_STEPS = 500_000
_MAX_BYTES = 500 << 20
_MAX_ITEMS = 1_000_000  # of nested lists, each counted as often as it occurs
_MAX_DEPTH = 200
_MAX_SECONDS = 10.0
_MAX_BITS = 10_000
_ITEM_BYTES = 100  # of an item in a new list; measured for tuples of two
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_CONTAINERS: tuple[Any, ...] = (list, tuple, dict, set, frozenset, *_VIEWS)


class Size(NamedTuple):
    """Characters of all texts in a value, number of its items, and how deep they are nested."""

    characters: int
    items: int
    depth: int


_SCALAR = Size(1, 1, 1)


@dataclass
class Steps:
    """The steps of one rendering so far, and the bytes that it has made."""

    count: int = 0
    made_bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    # Sizes of lists by id. The list is kept, so that no other one gets its id.
    sizes: dict[int, tuple[object, Size]] = field(default_factory=dict)

    def take(self) -> None:
        """Count one step.

        Raises:
            SecurityError: there are too many steps, or they take too long.
        """
        self.count += 1
        if self.count > MAX_STEPS:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")
        self.look_at_clock()

    def look_at_clock(self) -> None:
        """Refuse to go on after `_MAX_SECONDS`.

        Raises:
            SecurityError: the rendering takes too long.
        """
        if time.monotonic() - self.started > _MAX_SECONDS:
            raise SecurityError(f"it takes more than {_MAX_SECONDS:.0f} seconds")

    def measure(self, value: Any, sources: Sequence[object] = ()) -> Any:
        """Count the bytes of a value that was made, and return the value.

        Args:
            value: the result of an operation.
            sources: what a filter or call was given, if it is the result of one. A list that the
                template itself writes has no sources: its items are counted already.

        Raises:
            SecurityError: the value is too large or too deep, or all values together are too large.
        """
        self.look_at_clock()
        if isinstance(value, str | bytes):
            require_length(len(value))
            self.made_bytes += sys.getsizeof(value)
        elif isinstance(value, int):
            require_bits(value.bit_length())
            return value
        elif isinstance(value, _CONTAINERS):
            items = self.find_size(value).items
            self.made_bytes += sys.getsizeof(value) + (items * _ITEM_BYTES if sources else 0)
            if sources and isinstance(sources[0], str):  # it is cut into new texts
                self.made_bytes += sum(sys.getsizeof(part) for part in value)
        elif isinstance(value, Iterator) and not isinstance(value, CountedItems):
            return CountedItems(self, value, sources)
        if self.made_bytes > _MAX_BYTES:
            raise SecurityError(f"it makes more than {_MAX_BYTES >> 20} MiB in all")
        return value

    def find_size(self, value: Any, depth: int = 1) -> Size:
        """Return the size of a value; lists that were measured before are not measured again.

        Raises:
            SecurityError: the value is too large or too deep, or is a namespace.
        """
        if isinstance(value, str | bytes):
            return Size(len(value), 1, 1)
        if isinstance(value, CountedItems):
            return Size(1, 1, value.depth)
        if isinstance(value, Namespace):  # its size changes, and it may contain itself
            raise SecurityError("it uses a namespace as a value")
        if not isinstance(value, _CONTAINERS):
            return _SCALAR
        known = self.sizes.get(id(value))
        if known is None:
            _require_depth(depth)
            known = (value, self._add_up(value, depth))
            if isinstance(value, list | tuple | dict):
                self.sizes[id(value)] = known
        require_size(known[1])
        return known[1]

    def _add_up(self, value: Any, depth: int) -> Size:
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        characters, items, deepest = 2, 1, 0
        for part in parts:
            size = self.find_size(part, depth + 1)
            characters += size.characters
            items += size.items
            deepest = max(deepest, size.depth)
            require_items(items)
        return Size(characters, items, deepest + 1)


class CountedItems:
    """An iterator whose items are counted and measured when they are made."""

    def __init__(self, steps: Steps, items: Iterator[object], sources: Sequence[object]) -> None:
        """Wrap the result of a filter; a deep chain of them overflows the stack when it is freed.

        Raises:
            SecurityError: the sources are too deep.
        """
        self._steps = steps
        self._items = items
        self._sources = sources[:1]
        self.depth = 1 + max((steps.find_size(one).depth for one in sources), default=0)
        _require_depth(self.depth)

    def __iter__(self) -> "CountedItems":
        return self

    def __next__(self) -> object:
        """Make the next item."""
        self._steps.take()
        return self._steps.measure(next(self._items), self._sources)


def require_length(characters: int) -> None:
    """Refuse a text or list that is too long."""
    if characters > MAX_CHARACTERS:
        raise SecurityError(f"it makes a text or list longer than {MAX_CHARACTERS}")


def require_size(size: Size) -> None:
    """Refuse a nested value that is too large or too deep."""
    require_items(size.items)
    require_length(size.characters + size.items)
    _require_depth(size.depth)


def require_items(count: int) -> None:
    """Refuse a list with too many items."""
    if count > _MAX_ITEMS:
        raise SecurityError(f"it makes lists of more than {_MAX_ITEMS} items")


def _require_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise SecurityError(f"it nests values deeper than {_MAX_DEPTH}")


def require_bits(bits: int) -> None:
    """Refuse a number that takes long to compute with."""
    if bits > _MAX_BITS:
        raise SecurityError(f"it computes a number of more than {_MAX_BITS} bits")
