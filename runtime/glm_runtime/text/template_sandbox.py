"""A Jinja sandbox with limits: an untrusted template can neither hang nor exhaust the memory.

Jinja's own sandbox blocks access to Python's internals. This one also counts the steps of loops and
calls, and checks the size of a text before it is made. This file knows nothing about chats.
"""

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# A prompt of a million tokens has about five million characters, and a thousand messages take about
# ten thousand steps. Both limits are reached within seconds.
MAX_CHARACTERS = 20_000_000
MAX_STEPS = 500_000
_MAX_TOTAL = 25 * MAX_CHARACTERS  # of all texts together, intermediate ones included
_MAX_ITEMS = 1_000_000  # of nested lists, each counted as often as it occurs
_MAX_SECONDS = 10.0
_MAX_WIDTH = 10_000
_MAX_BITS = 10_000
_WIDE = {"center", "expandtabs", "indent", "ljust", "rjust", "zfill", "tojson", "round", "to_bytes"}
_WIDE |= {"batch", "slice", "wordwrap"}
# "%99999d", "%*d", "{:99999}", "{:{}}"
_LARGE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})|\{[^{}]*:[^{}]*(\{|\d{5})")
# A name with spaces, which no template can use.
_STEPS = "steps of this rendering"
_EACH, _CONCATENATION, _MADE = "each of a loop", "a concatenation", "what was made"


@dataclass
class Steps:
    """The steps of one rendering so far, and the characters and items that it has made."""

    count: int = 0
    made: int = 0
    started: float = field(default_factory=time.monotonic)

    def take(self) -> None:
        """Count one step.

        Raises:
            SecurityError: there are too many steps, or they take too long.
        """
        self.count += 1
        if self.count > MAX_STEPS:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")
        if time.monotonic() - self.started > _MAX_SECONDS:
            raise SecurityError(f"it takes more than {_MAX_SECONDS:.0f} seconds")

    def measure(self, value: Any) -> Any:
        """Count the length of a text or list that was made, and return it.

        Raises:
            SecurityError: it is too long, or all of them together are.
        """
        if isinstance(value, str | bytes | list | tuple):
            _require(len(value))
            self.made += len(value)
            if self.made > _MAX_TOTAL:
                raise SecurityError(f"it makes texts of more than {_MAX_TOTAL} characters in all")
        return value


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """The sandbox; templates must be rendered with `new_steps()` among the variables."""

    intercepted_binops = frozenset(["*", "**", "+", "%"])

    def __init__(self, *, extensions: list[Any]) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_require_small
        )
        del self.globals["lipsum"]
        self.concat = _join  # type: ignore[method-assign]  # joins macros and blocks

    def bound_filters(self) -> None:
        """Limit all filters; call it after the last filter is added."""
        self.filters = {name: _watch(name, item) for name, item in self.filters.items()}
        self.filters |= {_EACH: _count_items, _CONCATENATION: _watch("", _join), _MADE: _measure}

    def parse_bounded(self, source: str) -> nodes.Template:
        """Parse a template so that loops are counted and concatenations are measured."""
        template: nodes.Template = _Bounding().visit(self.parse(source))
        template.set_environment(self)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse operators that make a large text, list or number of small ones."""
        if operator in ("*", "**"):
            _check_product(operator, left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left, [right])
        made = super().call_binop(context, operator, left, right)
        return context.resolve(_STEPS).measure(made)

    def call(self, context: Context, called: Any, /, *values: Any, **named: Any) -> Any:
        """Count a call, and refuse methods that make a large text."""
        steps = context.resolve(_STEPS)
        steps.take()
        owner = getattr(called, "__self__", None)
        if isinstance(owner, str | bytes | int):
            _check_call(called.__name__, [owner, *values, *named.values()])
        if isinstance(called, LoopContext):
            values = tuple(_count_items(context, items) for items in values)
        return steps.measure(super().call(context, called, *values, **named))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Limit `format` and `format_map`, which Jinja replaces by its own functions."""
        replaced = super().wrap_str_format(value)
        if replaced is None:
            return None

        @functools.wraps(replaced)
        def watched(*values: Any, **named: Any) -> str:
            _check_format(value.__self__, [*values, *named.values()])
            return replaced(*values, **named)

        return watched


def new_steps() -> dict[str, object]:
    """Return the template variable that counts the steps of one rendering."""
    return {_STEPS: Steps()}


class _Bounding(NodeTransformer):
    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filtered(node.filter, _MADE, node.lineno)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, _MADE) if isinstance(node.arg, nodes.Slice) else node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # Jinja's name
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _EACH)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _CONCATENATION)


def _filtered(node: nodes.Node | None, name: str, line: int | None = None) -> nodes.Filter:
    """Apply a filter to a node; `None` stands for the content of a block."""
    return nodes.Filter(node, name, [], [], None, None, lineno=line or getattr(node, "lineno", 1))


@pass_context
def _count_items(context: Context, items: Iterable[object]) -> Iterator[object]:
    steps = context.resolve(_STEPS)
    for item in items:
        steps.take()
        yield item


def _join(parts: Iterable[object]) -> str:
    texts, total = [], 0
    for part in parts:
        texts.append(str(_require_small(part)))
        total += len(texts[-1])
        _require(total)
    return "".join(texts)


@pass_context
def _measure(context: Context, value: Any) -> Any:
    return context.resolve(_STEPS).measure(value)


def _watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    mark = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @pass_context
    def watched(context: Context, *values: Any, **named: Any) -> Any:
        _check_call(name, [*values, *named.values()])
        steps = context.resolve(_STEPS)
        steps.take()
        first: dict[str, tuple[object, ...]] = {
            "context": (context,),
            "eval_context": (context.eval_ctx,),
            "environment": (context.environment,),
        }
        return steps.measure(function(*first.get(mark, ()), *values, **named))

    return watched


def _check_call(name: str, values: list[Any]) -> None:
    """Check a filter or method: `values` are its object and its arguments."""
    applied, given = _require_small(values[0]), values[1:]
    widths = [value if isinstance(value, int) else _length(value) for value in given]
    if name in _WIDE and max(widths, default=0) > _MAX_WIDTH:
        raise SecurityError(f"{name} is given a width above {_MAX_WIDTH}")
    if name in ("indent", "expandtabs"):
        breaks = sum(applied.count(sign) for sign in "\n\t") if isinstance(applied, str) else 0
        _require((breaks + 1) * max(widths, default=8))
    elif name == "join":
        between = _length(given[0]) if given else 0
        _require(_measure_deep(applied) + _length(applied) * between)
    elif name == "replace" and len(given) > 1 and isinstance(applied, str | bytes):
        sought = given[0] if isinstance(given[0], str | bytes) else str(given[0])
        _require(applied.count(sought) * _length(given[1]))  # type: ignore[arg-type]
    elif name in ("wordwrap", "translate"):
        _require(_length(applied) * (1 + max(map(_measure_deep, given), default=0)))
    elif name.startswith("format") and isinstance(applied, str):
        _check_format(applied, given)


def _length(value: object) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _check_product(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length()
        if bits + (right.bit_length() if operator == "*" else 0) > _MAX_BITS:
            raise SecurityError(f"it computes a number of more than {_MAX_BITS} bits")
        return
    for one, times in ((left, right), (right, left)):
        if isinstance(one, str | bytes | list | tuple) and isinstance(times, int):
            _require(len(one) * times)


def _check_format(text: str, values: Iterable[object]) -> None:
    fields = text.count("%") + text.count("{")
    _require(len(text) + fields * sum(map(_measure_deep, values)))
    if _LARGE_FORMAT.search(text):
        raise SecurityError("it formats with a large width, or with a width that is an argument")


def _require_small(value: Any) -> Any:
    """Check a value that becomes text, and return it."""
    if isinstance(value, list | tuple | dict):
        _require(_measure_deep(value))
    return value


def _measure_deep(value: object) -> int:
    """Return the characters of all texts in a value; each item of a list counts as one more.

    Raises:
        SecurityError: there are too many items.
    """
    waiting, items, total = [value], 0, 0
    while waiting:
        one = waiting.pop()
        items += 1
        if items > _MAX_ITEMS:
            raise SecurityError(f"it makes lists of more than {_MAX_ITEMS} items")
        if isinstance(one, str | bytes):
            total += len(one)
        elif isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
    return total + items


def _require(characters: int) -> None:
    if characters > MAX_CHARACTERS:
        raise SecurityError(f"it makes a text or list longer than {MAX_CHARACTERS}")
