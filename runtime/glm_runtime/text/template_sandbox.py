"""A Jinja sandbox with limits: an untrusted template can neither hang nor exhaust the memory.

Jinja's own sandbox blocks access to Python's internals. This one also passes every operation to
`template_operations.py` before it runs, and its result to `template_limits.py`. This file knows
nothing about chats.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from glm_runtime.text.template_limits import Steps, require_length
from glm_runtime.text.template_operations import (
    MAX_SOURCE_CHARACTERS,
    METHODS,
    check_filter,
    check_method,
    check_operator,
    list_sources,
)

# Names with spaces, which no template can use.
_STEPS = "steps of this rendering"
_EACH, _CONCATENATION, _MADE = "each of a loop", "a concatenation", "what was made"
# Nodes whose value is new, or whose cost grows with the size of their operands.
_MAKING = (nodes.List, nodes.Tuple, nodes.Dict, nodes.Compare, nodes.Test)


class BoundedSandbox(ImmutableSandboxedEnvironment):
    """The sandbox; templates must be rendered with `new_steps()` among the variables."""

    intercepted_binops = frozenset(["*", "**", "+", "%", "-", "/", "//"])

    def __init__(self, *, extensions: list[Any]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        del self.globals["lipsum"]
        self.finalize = _print
        self.concat = _join  # type: ignore[method-assign]  # joins macros and blocks

    def bound_filters(self) -> None:
        """Limit all filters; call it after the last filter is added."""
        self.filters = {name: _watch(name, item) for name, item in self.filters.items()}
        self.filters |= {_EACH: _count_items, _CONCATENATION: _concatenate, _MADE: _measure}

    def parse(
        self, source: str, name: str | None = None, filename: str | None = None
    ) -> nodes.Template:
        """Parse a template as Jinja does.

        Raises:
            SecurityError: the template is far longer than any chat template.
        """
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise SecurityError(f"it has more than {MAX_SOURCE_CHARACTERS} characters")
        return super().parse(source, name, filename)

    def parse_bounded(self, source: str) -> nodes.Template:
        """Parse a template so that every operation is counted and measured."""
        template: nodes.Template = _Bounding().visit(self.parse(source))
        template.set_environment(self)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse operators that make a large text, list or number of small ones."""
        steps = context.parent[_STEPS]
        check_operator(steps, operator, left, right)
        return steps.measure(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *values: Any, **named: Any) -> Any:
        """Count a call, and refuse methods that make a large text."""
        steps = context.parent[_STEPS]
        steps.take()
        owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        given = [*values, *named.values()]
        if isinstance(owner, tuple(METHODS)):
            check_method(steps, owner, name, given)
        if isinstance(called, LoopContext):
            values = tuple(_count_items(context, items) for items in values)
        made = super().call(context, called, *values, **named)
        return steps.measure(made, list_sources(name, [owner, *given]))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Limit `format` and `format_map`, which Jinja replaces by its own functions."""
        replaced = super().wrap_str_format(value)
        if replaced is None:
            return None

        @functools.wraps(replaced)
        def watched(*values: Any, **named: Any) -> str:
            given = [*values, *named.values()]
            check_method(Steps(), value.__self__, value.__name__, given)
            return replaced(*values, **named)

        return watched


def new_steps() -> dict[str, object]:
    """Return the template variable that counts the steps of one rendering."""
    return {_STEPS: Steps()}


class _Bounding(NodeTransformer):
    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        visited = super().visit(node, *args, **kwargs)
        is_target = getattr(visited, "ctx", "load") != "load"  # of `set a, b = ...`
        if isinstance(visited, _MAKING) and not is_target:
            return _filtered(visited, _MADE)
        return visited

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
    steps = context.parent[_STEPS]
    for item in items:
        steps.take()
        yield item


@pass_context
def _concatenate(context: Context, parts: list[object]) -> str:
    steps = context.parent[_STEPS]
    joined: str = steps.measure(_join(_print(context, part) for part in parts))
    return joined


def _join(parts: Iterable[object]) -> str:
    texts, total = [], 0
    for part in parts:
        texts.append(str(part))
        total += len(texts[-1])
        require_length(total)
    return "".join(texts)


@pass_context
def _measure(context: Context, value: Any) -> Any:
    return context.parent[_STEPS].measure(value)


@pass_context
def _print(context: Context, value: Any) -> Any:
    """Check a value that becomes text, and return it."""
    steps = context.parent[_STEPS]
    steps.look_at_clock()
    steps.find_size(value)
    return value


def _watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    mark = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

    @pass_context
    def watched(context: Context, *values: Any, **named: Any) -> Any:
        steps = context.parent[_STEPS]
        steps.take()
        given = [*values, *named.values()]
        check_filter(steps, name, given)
        first: dict[str, tuple[object, ...]] = {
            "context": (context,),
            "eval_context": (context.eval_ctx,),
            "environment": (context.environment,),
        }
        made = function(*first.get(mark, ()), *values, **named)
        return steps.measure(made, list_sources(name, given))

    return watched
