"""Regular expressions of a checkpoint's settings, matched with names of modules.

Python's `re` can need longer than the age of the universe for one name, and nothing in the same
process can end it. So expressions that are more than a name run in a process with a time limit.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_LIMIT_S = 10
_PROCESS = Path(__file__).with_name("match_process.py")
# A name with anchors and dots is compared in as many steps as it has letters.
_NAME = re.compile(r"(?:[\w$^-]|\\?\.)*", re.ASCII)

Matches = Mapping[str, Mapping[str, str]]


class PatternError(ValueError):
    """An expression that cannot be used. The text says what it is, and belongs after its name."""

    def __init__(self, pattern: str, what: str) -> None:
        """Keep the expression beside the text."""
        super().__init__(what)
        self.pattern = pattern


@lru_cache(maxsize=64)
def match_names(
    patterns: tuple[str, ...],
    names: tuple[str, ...],
    form: str = "{}",
    *,
    is_full: bool = False,
) -> Matches:
    """Return the names that each expression matches.

    Args:
        patterns: expressions, which are not trusted.
        names: names of modules.
        form: trusted expression around each of them, with `{}` in its place.
        is_full: True if an expression must match a whole name and not just its beginning.

    Returns:
        For each expression the text of the group `idx`, or "", by each name that it matches.

    Raises:
        PatternError: this is not a regular expression, or it takes too long.
    """
    whole = {pattern: form.replace("{}", pattern) for pattern in patterns}
    hard = tuple(pattern for pattern in patterns if _NAME.fullmatch(pattern) is None)
    found = _run(tuple(whole[pattern] for pattern in hard), hard, names, is_full) if hard else {}
    for pattern in set(patterns).difference(hard):
        expression = re.compile(whole[pattern])
        tried = (expression.fullmatch(n) if is_full else expression.match(n) for n in names)
        found[pattern] = {m.string: m.groupdict().get("idx") or "" for m in tried if m is not None}
    return found


def _run(
    expressions: tuple[str, ...], patterns: tuple[str, ...], names: tuple[str, ...], is_full: bool
) -> dict[str, Mapping[str, str]]:
    request = json.dumps({"patterns": expressions, "names": names, "is_full": is_full})
    command = [sys.executable, "-I", "-S", str(_PROCESS)]
    try:
        done = subprocess.run(
            command, input=request.encode(), capture_output=True, timeout=_LIMIT_S, check=True
        )
    except subprocess.TimeoutExpired as error:
        tried = (error.stdout or b"").count(b"\n")
        raise PatternError(
            patterns[tried],
            f"a regular expression that was not matched with {len(names)} names within "
            f"{_LIMIT_S} s",
        ) from error
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"not matched, because a process of Python failed ({error})"
        raise PatternError(patterns[0], reason) from error
    found: dict[str, Mapping[str, str]] = {}
    for pattern, line in zip(patterns, done.stdout.splitlines(), strict=True):
        matched = json.loads(line)
        if isinstance(matched, str):
            raise PatternError(pattern, f"not a regular expression ({matched})")
        found[pattern] = matched
    return found
