"""What a worker process does, whatever runtime it holds: load, say so, answer every line.

Every line of stdin is a request, every line of stdout an answer, both JSON. Imports nothing but the
standard library, since each runtime has an environment of its own.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol


class System(Protocol):
    """A loaded model."""

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """Answer with tokens, as they come."""


def measure(system: System, prompt: Sequence[int], num_tokens: int) -> dict[str, object]:
    """Answer once.

    `first_token_seconds` goes from the call to the first token, `decode_seconds` from there to the
    last of `num_tokens`, which is `num_tokens - 1` runs of the graph.
    """
    started = time.perf_counter()
    tokens = system.generate(prompt, num_tokens)
    first = next(tokens)
    middle = time.perf_counter()
    rest = list(tokens)
    ended = time.perf_counter()
    return {
        "first_token_seconds": middle - started,
        "decode_seconds": ended - middle,
        "tokens": [first, *rest],
    }


def serve(load: Callable[[], System]) -> None:
    """Load, say so, answer every line."""
    started = time.perf_counter()
    system = load()
    print(json.dumps({"load_seconds": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = measure(system, request["prompt"], request["num_tokens"])
        print(json.dumps(answer), flush=True)
