"""The order of packages, and of the rooms inside each: imports go one way.

Broken once, a leaf that imports torch would make every deployed folder need torch; a room that
imports a later one would make both unreadable alone.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "glm_export": ROOT / "export" / "glm_export",
    "glm_quantize": ROOT / "quantize" / "glm_quantize",
    "glm_runtime": ROOT / "runtime" / "glm_runtime",
    "glm_agents": ROOT / "runtime" / "glm_agents",
    "glm_lm_eval": ROOT / "runtime" / "glm_lm_eval",
    "glm_server": ROOT / "runtime" / "glm_server",
}
FORBIDDEN = {
    "glm_quantize": {"glm_export", "glm_runtime", "torch", "onnx", "onnxruntime", "transformers"},
    "glm_runtime": {
        "glm_export",
        "glm_quantize",
        "glm_agents",
        "glm_lm_eval",
        "glm_server",
        "torch",
        "onnx",
        "transformers",
    },
    "glm_agents": {"glm_export", "glm_quantize", "glm_server", "torch", "onnx", "transformers"},
    "glm_lm_eval": {"glm_export", "glm_quantize", "glm_server", "torch", "onnx", "transformers"},
    "glm_server": {"glm_export", "glm_quantize", "torch", "onnx", "transformers"},
}
STARTS_SERVER = ROOT / "runtime" / "glm_runtime" / "cli" / "serve.py"
STARTS_AGENTS = ROOT / "runtime" / "glm_runtime" / "cli" / "agent.py"
USES_TORCH = {"gptq.py", "refine.py"}

# A room is a subfolder or a module at the top of its package. It may import the rooms before it.
# The dot is the package's own __init__.py, whose imports inside functions do not count.
ROOMS = {
    "glm_export": """
        errors even_sample text_file packages device optimum_config model checkpoint tokenizer plan
        calibration graph output early_checks evaluation job . folder preparation calibrate speeds
        estimates pipeline plan_text command_line evaluate_cli cli __main__
    """,
    "glm_runtime": """
        errors arrays file_lock progress folder text sampling graph health answering model
        prompt_lines benchmark conversation . ray cli __main__
    """,
    "glm_agents": """
        . errors limits configuration texts offers observation last_words bounded_http
        sandbox_program sandbox connection toolbox strategy turns loop
    """,
    "glm_lm_eval": ". options answers model __main__",
    "glm_server": """
        . settings errors ids store metrics operator_tools services schema call_rules free_text
        forms resent_calls questions answers sections turns access connections openai anthropic
        status page description app program
    """,
}


def list_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names that a file imports, and whether inside a function or for types only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node not in at_top


def name_room(package: str, dotted: str) -> str:
    """The room of a module or of a name in it; "." for what the package itself gives."""
    part = dotted.split(".")[1] if "." in dotted else ""
    places = (FOLDERS[package] / part, FOLDERS[package] / f"{part}.py")
    return part if part and any(place.exists() for place in places) else "."


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_leaves_import_nobody(package: str) -> None:
    files = sorted(FOLDERS[package].rglob("*.py"))
    assert files
    for path in files:
        allowed = {"torch"} if package == "glm_quantize" and path.name in USES_TORCH else set()
        allowed |= {"glm_server"} if path == STARTS_SERVER else set()
        allowed |= {"glm_agents"} if path == STARTS_AGENTS else set()
        imported = {name.split(".")[0] for name, _ in list_imports(path)}
        assert not imported & FORBIDDEN[package] - allowed, path


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_rooms_import_only_those_before_them(package: str) -> None:
    floors = {room: floor for floor, room in enumerate(ROOMS[package].split())}
    for path in sorted(FOLDERS[package].rglob("*.py")):
        inside = path.relative_to(FOLDERS[package]).with_suffix("").parts
        room = "." if inside == ("__init__",) else inside[0]
        assert room in floors, f"{path}: a new room needs its place in ROOMS"
        for dotted, is_deferred in list_imports(path):
            if dotted.split(".")[0] != package or (room == "." and is_deferred):
                continue
            other = name_room(package, dotted)
            assert other == room or floors[other] < floors[room], f"{path} imports {dotted}"


@pytest.mark.parametrize(
    "package",
    ["glm_quantize", "glm_runtime", "glm_runtime.cli", "glm_agents.loop", "glm_server.app"],
)
def test_importing_a_leaf_loads_no_torch(package: str) -> None:
    code = f"import sys, {package}; sys.exit('torch' in sys.modules)"
    paths = [str(folder.parent) for folder in FOLDERS.values()]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {code}"]
    subprocess.run(command, check=True)


def test_no_file_or_function_is_too_long() -> None:
    """Files stop at 400 lines, functions at 60."""
    for folder in FOLDERS.values():
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert len(text.splitlines()) <= 400, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    assert (node.end_lineno or 0) - node.lineno < 60, (path, node.name)
