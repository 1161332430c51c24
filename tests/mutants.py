"""Mutation tests: change one operator, number or statement, and see whether a test fails.

    python tests/mutants.py quantize/glm_quantize/packing.py tests/quantize/test_packing.py

Name a module and the test files that cover it, the fastest first. The tests run in a copy of the
repository, for each mutant in a process forked from this one, which has imported the large
libraries. A mutant that is printed survived: write a test that fails with it, or show that it
changes nothing that a user can see.
"""

import argparse
import ast
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NoReturn

import onnxruntime  # noqa: F401  # imported once, for all mutants
import pytest
import torch  # noqa: F401

ROOT = Path(__file__).parents[1]
LOG = Path(tempfile.gettempdir()) / "mutants.log"
SWAPS: dict[type[ast.AST], type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
UNTOUCHED = (ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.JoinedStr)
Mutant = tuple[int, str, bytes]  # its line, what it replaces, and the whole new source


def list_mutants(source: bytes) -> list[Mutant]:
    """Return a module's mutants by line; error messages and types are left as they are."""
    starts = [0, *accumulate(len(line) for line in source.splitlines(keepends=True))]
    mutants = []
    for node in _walk(ast.parse(source)):
        for old, new in _replace(node):
            begin = starts[old.lineno - 1] + old.col_offset
            end = starts[(old.end_lineno or 0) - 1] + (old.end_col_offset or 0)
            change = " ".join(f"{source[begin:end].decode()}  ->  {new}".split())
            mutants.append((old.lineno, change, source[:begin] + new.encode() + source[end:]))
    return sorted(mutants)


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            is_type = field in {"annotation", "returns", "decorator_list", "bases"}
            skipped = is_type or is_docstring or isinstance(child, UNTOUCHED)
            if isinstance(child, ast.AST) and not skipped:
                yield from _walk(child)


def _replace(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield pairs of a node and the text that takes its place."""
    match node:
        case ast.Compare(left, operators, rights):
            for index, operator in enumerate(operators):
                swapped = [*operators[:index], SWAPS[type(operator)](), *operators[index + 1 :]]
                yield node, f"({ast.unparse(ast.Compare(left, swapped, rights))})"
        case ast.BinOp(left, _, right) if type(node.op) in SWAPS:
            yield node, f"({ast.unparse(ast.BinOp(left, SWAPS[type(node.op)](), right))})"
        case ast.BoolOp(_, values):
            yield node, f"({ast.unparse(ast.BoolOp(SWAPS[type(node.op)](), values))})"
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(bool(value)):
            yield node, str(not value)
        case ast.Constant(int(value) | float(value)):
            yield node, str(value + 1)
        case ast.Constant(str(value)):
            yield node, repr(f"{value}x")
        case ast.Name("min" | "max"):
            yield node, "max" if node.id == "min" else "min"
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Assign([ast.Attribute()]):
            yield node, "pass"
        case ast.If(test) | ast.While(test) | ast.IfExp(test):
            if not isinstance(test, ast.Compare | ast.UnaryOp):
                yield test, f"(not ({ast.unparse(test)}))"


def run_tests(folder: Path, tests: list[str], limit_s: float) -> tuple[bool, float]:
    """Run tests in a forked process; return whether they passed, and their processor seconds."""
    process = os.fork()
    if not process:
        _run_pytest(folder, tests, int(limit_s))
    _, status, usage = os.wait4(process, 0)
    return status == 0, usage.ru_utime


def _run_pytest(folder: Path, tests: list[str], limit_s: int) -> NoReturn:
    signal.alarm(10 * limit_s)  # of waiting; the machine may be busy
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))  # of endless lists, too
    for stream in (1, 2):
        os.dup2(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(folder)
    places = [str(folder / name) for name in ("export", "quantize", "runtime")]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)  # of programs that tests start
    options = ["-x", "-q", "-m", "not exhaustive", "-p", "no:cacheprovider", "--rootdir", "."]
    code = pytest.main([*options, *tests])
    sys.stdout.flush()
    os._exit(int(code))


def main() -> None:
    """Copy the repository, and run the tests once for each mutant of a module."""
    parser = argparse.ArgumentParser(description="Run the mutants of one module.")
    parser.add_argument("module", help="path of the module")
    parser.add_argument("tests", nargs="+", help="test files that cover it, the fastest first")
    parser.add_argument("--most", type=int, default=50, help="number of mutants, spread evenly")
    arguments = parser.parse_args()
    sys.path.remove(str(ROOT / "tests"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]
        for file in subprocess.check_output(command, text=True).splitlines():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
        is_passed, seconds = run_tests(folder, arguments.tests, 600)
        if not is_passed:
            sys.exit(f"the tests fail without a change; see {LOG}.")
        path = folder / arguments.module
        mutants = list_mutants(path.read_bytes())
        count, survived = min(arguments.most, len(mutants)), 0
        for line, change, source in (mutants[i * len(mutants) // count] for i in range(count)):
            path.write_bytes(source)
            for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
                cached.unlink()  # a change within a second of the last one would not be seen
            if run_tests(folder, arguments.tests, 3 * seconds + 10)[0]:
                survived += 1
                print(f"{path.name}:{line}: survived: {change}", flush=True)
    print(f"{path.name}: {count} of {len(mutants)} mutants, {survived} survived")


if __name__ == "__main__":
    main()
