"""The release's bill of materials, CycloneDX: what our packages bring with them.

Python's part is read from an environment with our wheel and its extra `onnxruntime`, Node's and the
page's from their lock files. The zips of glm-run hold ONNX Runtime of the version that the Python
part names.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_SPEC_VERSION = "1.5"  # what npm writes
# What runtime/web builds and tests with; all its other packages become part of the page.
_WEB_TOOLS = {
    "@scarf/scarf",  # counts installations of swagger-ui-dist; package.json turns it off
    "@types/node",
    "@types/trusted-types",
    "axe-core",
    "esbuild",
    "playwright-core",
    "typescript",
}

Bill = dict[str, Any]


def write_bill(wheel: Path, target: Path) -> None:
    """Write one bill for the whole release.

    Args:
        wheel: our Python package.
        target: JSON file to write.
    """
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415  # only `make release` installs it
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    bill = _list_python(wheel)
    own = bill["metadata"]["component"]["bom-ref"]
    node_tools = json.loads((ROOT / "runtime/node/package.json").read_text("utf-8"))
    for host, tools in (("node", set(node_tools["devDependencies"])), ("web", _WEB_TOOLS)):
        _merge(bill, own, _list_npm(ROOT / "runtime" / host), tools)
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    fault = JsonStrictValidator(SchemaVersion.from_version(_SPEC_VERSION)).validate_str(text)
    if fault is not None:
        sys.exit(f"The bill of materials is no CycloneDX {_SPEC_VERSION}: {fault}")
    target.write_text(text, encoding="utf-8")


def _list_python(wheel: Path) -> Bill:
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        _run(sys.executable, "-m", "venv", "--without-pip", environment)
        python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        constraints = ["-c", ROOT / "constraints.txt"]
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        _run(*pip, *constraints, f"{wheel}[onnxruntime]")
        options = ["--output-reproducible", "--spec-version", _SPEC_VERSION]
        main = ["--pyproject", ROOT / "pyproject.toml", "--mc-type", "application"]
        tool = [sys.executable, "-m", "cyclonedx_py", "environment", *options, *main]
        bill: Bill = json.loads(_run(*tool, "--output-file", "-", python))
    bill["metadata"]["component"]["version"] = wheel.name.split("-")[1]
    return bill


def _list_npm(package: Path) -> Bill:
    # With --omit=dev npm 11 lists nothing at all.
    command = ["npm", "sbom", "--sbom-format=cyclonedx", "--package-lock-only"]
    bill: Bill = json.loads(_run(*command, folder=package))
    # npm takes the folder's name for the package's.
    component = bill["metadata"]["component"]
    component["name"] = component["bom-ref"].rpartition("@")[0]
    return bill


def _merge(bill: Bill, own: str, part: Bill, tools: set[str]) -> None:
    """Add what an npm package reaches, but for its tools, to the bill."""
    package = part["metadata"]["component"]
    by_reference = {one["bom-ref"]: one for one in part["components"]}
    needs = {
        one["ref"]: [
            ref for ref in one.get("dependsOn", []) if by_reference[ref]["name"] not in tools
        ]
        for one in part["dependencies"]
    }
    reached, waiting = {}, [package["bom-ref"]]
    while waiting:
        reference = waiting.pop()
        if reference not in reached:
            reached[reference] = by_reference.get(reference, package)
            waiting += needs.get(reference, [])
    known = {one["bom-ref"] for one in bill["components"]}
    for reference in sorted(reached.keys() - known):
        component = reached[reference]
        component.pop("properties", None)  # npm's notes on its own folders
        component.pop("scope", None)
        bill["components"].append(component)
        bill["dependencies"].append(
            {"ref": reference, "dependsOn": sorted(needs.get(reference, []))}
        )
    (top,) = [one for one in bill["dependencies"] if one["ref"] == own]
    top["dependsOn"] = sorted({*top.get("dependsOn", []), package["bom-ref"]})


def _run(*command: object, folder: Path = ROOT) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
