"""A runtime in a worker process: ours, or onnxruntime-genai. Read `processes.py` before.

    python -m benchmarks.runtimes SYSTEM FOLDER THREADS

Both do what their users do: read the prompt, choose greedily, and turn each token into text as it
comes.
"""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import System, Worker, find_module, serve
from glm_runtime import GenerationSettings, PreparedModels, SamplingSettings, load
from glm_runtime.folder.manifest import read_manifest

OURS, OURS_ON_SMALL_PAGES, OURS_PREPARED = "glm-run", "glm-run-small-pages", "glm-run-prepared"
THEIRS = "onnxruntime-genai"


def start_worker(system: str, folder: Path, threads: int) -> Worker:
    """Start this module with one of its runtimes.

    Raises:
        ChildError: the folder could not be loaded.
    """
    return Worker(system, command_of(system, folder, threads))


def command_of(system: str, folder: Path, threads: int) -> list[str]:
    """The command of a worker."""
    return [*find_module("runtimes"), system, str(folder), str(threads)]


class GlmRuntime:
    """Our runtime through its public interface.

    `OURS` loads weights onto huge pages, as `glm-run chat` does; `OURS_ON_SMALL_PAGES` loads as
    `glm-run generate` does; `OURS_PREPARED` loads a copy that `glm-run prepare` would make.
    """

    def __init__(self, system: str, folder: Path, threads: int) -> None:
        copies = None
        if system == OURS_PREPARED:
            copies = PreparedModels(folder.with_name("prepared"))
            copies.make(folder, read_manifest(folder))
        has_huge_pages = system == OURS
        self._model = load(folder, "cpu", threads, has_huge_pages=has_huge_pages, prepared=copies)

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `processes.System`."""
        settings = GenerationSettings(SamplingSettings(temperature=0.0), num_tokens)
        for piece in self._model.generate(prompt, settings):
            yield piece.token_id


class OnnxRuntimeGenai:
    """onnxruntime-genai, as its own examples use it.

    It gets two settings in its favour: the number of threads, without which it ran at half speed
    on two cores, and a `max_length` of what is needed, since it allocates its cache for all of it.
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
        """See `processes.System`."""
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


def main() -> None:
    """Entry point."""
    system, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])

    def open_system() -> System:
        if system == THEIRS:
            return OnnxRuntimeGenai(folder, threads)
        return GlmRuntime(system, folder, threads)

    serve(open_system)


if __name__ == "__main__":
    main()
