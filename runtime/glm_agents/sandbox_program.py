"""Runs in the sandbox, alone: limits itself, then runs the code that comes from stdin.

As in a notebook, the value of a last expression is printed. `sandbox.py` passes this file's text to
an interpreter, together with the limits: bytes of memory, and the number of processes.
"""

import ast
import linecache
import resource
import sys
import traceback
from types import TracebackType

_NAME = "<python>"


def limit(memory_bytes: int, max_processes: int) -> None:
    """Set limits that no child can raise."""
    if sys.platform == "win32":
        raise OSError("this system has no limits of resources")
    for kind, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NPROC, max_processes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))


def run(code: str) -> None:
    """Run the code, and print the value of its last expression."""
    linecache.cache[_NAME] = (len(code), None, code.splitlines(keepends=True), _NAME)
    tree = ast.parse(code, _NAME)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(tree, _NAME, "exec"), names)
    if last is not None:
        assert isinstance(last, ast.Expr)
        value = eval(compile(ast.Expression(last.value), _NAME, "eval"), names)
        if value is not None:
            print(repr(value))


def find_own(frames: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the code's own first frame on."""
    while frames is not None and frames.tb_frame.f_code.co_filename != _NAME:
        frames = frames.tb_next
    return frames


if __name__ == "__main__":
    limit(int(sys.argv[1]), int(sys.argv[2]))
    try:
        run(sys.stdin.read())
    except Exception as error:
        traceback.print_exception(type(error), error, find_own(error.__traceback__))
        sys.exit(1)
