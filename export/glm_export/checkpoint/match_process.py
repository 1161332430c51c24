"""A program of its own that matches regular expressions; `name_patterns.py` runs it.

It reads one JSON object from stdin and writes one line of JSON for each expression. It imports
nothing of this package, so that it starts quickly.
"""

import json
import re
import sys


def match(pattern: str, names: list[str], is_full: bool) -> dict[str, str] | str:
    """Return the text of the group `idx`, or "", by each name that matches; or what is wrong."""
    try:
        expression = re.compile(pattern)
        tried = [
            expression.fullmatch(name) if is_full else expression.match(name) for name in names
        ]
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        return str(error) or type(error).__name__
    return {one.string: one.groupdict().get("idx") or "" for one in tried if one is not None}


if __name__ == "__main__":
    request = json.load(sys.stdin)
    for pattern in request["patterns"]:
        print(json.dumps(match(pattern, request["names"], request["is_full"])), flush=True)
