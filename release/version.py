"""The version, which export/glm_export/__init__.py states, and its copies elsewhere.

`python release/version.py` prints it; `python release/version.py 0.2.0` changes it everywhere.
CMake and the wheels' builder read it from the first file; the other files cannot.
"""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PYTHON = r'^__version__ = "([^"]+)"'
_PACKAGE = r'^  "version": "([^"]+)"'
_LOCK = r'\A\{\n  "name": "[^"]+",\n  "version": "([^"]+)"'
_LOCK_ROOT = r'^    "": \{\n      "name": "[^"]+",\n      "version": "([^"]+)"'
# The first is where the version is read; each pattern's group is the version.
PLACES = [
    ("export/glm_export/__init__.py", _PYTHON),
    ("quantize/glm_quantize/__init__.py", _PYTHON),
    ("runtime/glm_runtime/__init__.py", _PYTHON),
    *[
        (f"runtime/{host}/{name}", pattern)
        for host in ("node", "web")
        for name, pattern in (
            ("package.json", _PACKAGE),
            ("package-lock.json", _LOCK),
            ("package-lock.json", _LOCK_ROOT),
        )
    ],
]


def read_version(place: str, pattern: str) -> str:
    """The version that stands in a file."""
    return _find(place, pattern)[1]


def set_version(version: str) -> None:
    """Write the version into every place; a place without a version changes no file."""
    for place, pattern in PLACES:
        _find(place, pattern)
    for place, pattern in PLACES:
        found = _find(place, pattern)
        text = found.string[: found.start(1)] + version + found.string[found.end(1) :]
        (ROOT / place).write_text(text, encoding="utf-8", newline="\n")


def _find(place: str, pattern: str) -> re.Match[str]:
    text = (ROOT / place).read_text(encoding="utf-8")
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{place} states no version where release/version.py expects one.")
    return found


def _parse_version(text: str) -> str:
    if re.fullmatch(r"\d+\.\d+\.\d+", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers such as 0.2.0")
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("version", nargs="?", type=_parse_version, help="Version to write.")
    chosen = parser.parse_args()
    if chosen.version:
        set_version(chosen.version)
    print(read_version(*PLACES[0]))
