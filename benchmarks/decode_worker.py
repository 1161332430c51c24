"""One runtime in a process of its own: loads a folder once, then answers when told.

    python benchmarks/decode_worker.py SYSTEM FOLDER THREADS

Every line of stdin is a request, every line of stdout an answer, both JSON. Both runtimes do what
their users do: read the prompt, choose greedily, turn each token into text as it comes. Started by
`decode.py`.
"""

import importlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glm_runtime import GenerationSettings, SamplingSettings, load

OURS, OURS_ON_SMALL_PAGES, THEIRS = "glm_runtime", "glm_runtime_small_pages", "onnxruntime_genai"


class System(ABC):
    """A loaded model."""

    @abstractmethod
    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """Answer with tokens, as they come."""


class GlmRuntime(System):
    """Ours, through its public interface, loaded as `glm-run chat` does: onto huge pages."""

    has_huge_pages = True

    def __init__(self, folder: Path, threads: int) -> None:
        self._model = load(folder, "cpu", threads, has_huge_pages=self.has_huge_pages)

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `System`."""
        settings = GenerationSettings(SamplingSettings(temperature=0.0), num_tokens)
        for piece in self._model.generate(prompt, settings):
            yield piece.token_id


class GlmRuntimeOnSmallPages(GlmRuntime):
    """Ours, loaded as `glm-run generate` does."""

    has_huge_pages = False


class OnnxRuntimeGenai(System):
    """onnxruntime-genai, as its own examples use it.

    Two settings in its favour: the number of threads, without which it ran at half speed on two
    cores, and a `max_length` of what is needed, since it allocates its cache for all of it.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._genai: Any = importlib.import_module("onnxruntime_genai")
        self._genai.disable_telemetry_events()
        config = self._genai.Config(str(folder))
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = self._genai.Model(config)
        self._tokenizer = self._genai.Tokenizer(self._model)

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `System`."""
        parameters = self._genai.GeneratorParams(self._model)
        parameters.set_search_options(do_sample=False, max_length=len(prompt) + num_tokens)
        generator = self._genai.Generator(self._model, parameters)
        text = self._tokenizer.create_stream()
        generator.append_tokens(list(prompt))
        while not generator.is_done():
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            text.decode(token)
            yield token


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


def main() -> None:
    """Load, say so, answer every line."""
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    kinds: dict[str, type[GlmRuntime] | type[OnnxRuntimeGenai]] = {
        OURS: GlmRuntime,
        OURS_ON_SMALL_PAGES: GlmRuntimeOnSmallPages,
        THEIRS: OnnxRuntimeGenai,
    }
    started = time.perf_counter()
    system = kinds[name](folder, threads)
    print(json.dumps({"load_seconds": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = measure(system, request["prompt"], request["num_tokens"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
