"""One runtime in a process of its own: loads a folder once, then answers when told.

    python benchmarks/decode_worker.py SYSTEM FOLDER THREADS

Both runtimes do what their users do: read the prompt, choose greedily, turn each token into text as
it comes. Started by `decode.py` and `peers.py`; read `answering.py` for what is timed.
"""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from answering import serve

from glm_runtime import GenerationSettings, PreparedModels, SamplingSettings, load
from glm_runtime.folder.manifest import read_manifest

OURS, OURS_ON_SMALL_PAGES, THEIRS = "glm_runtime", "glm_runtime_small_pages", "onnxruntime_genai"
OURS_PREPARED = "glm_runtime_prepared"


class GlmRuntime:
    """Ours, through its public interface, loaded as `glm-run chat` does: onto huge pages."""

    has_huge_pages = True
    is_eos_ignored = False

    def __init__(self, folder: Path, threads: int) -> None:
        self._model = load(folder, "cpu", threads, has_huge_pages=self.has_huge_pages)

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `answering.System`."""
        greedy = SamplingSettings(temperature=0.0)
        settings = GenerationSettings(greedy, num_tokens, is_eos_ignored=self.is_eos_ignored)
        for piece in self._model.generate(prompt, settings):
            yield piece.token_id


class GlmRuntimeOnSmallPages(GlmRuntime):
    """Ours, loaded as `glm-run generate` does."""

    has_huge_pages = False


class GlmRuntimePrepared(GlmRuntime):
    """Ours, from a copy that `glm-run prepare` would make; it is made beside the folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        copies = PreparedModels(folder.with_name("prepared"))
        copies.make(folder, read_manifest(folder))
        self._model = load(folder, "cpu", threads, prepared=copies)


class OnnxRuntimeGenai:
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
        """See `answering.System`."""
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
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    kinds: dict[str, type[GlmRuntime] | type[OnnxRuntimeGenai]] = {
        OURS: GlmRuntime,
        OURS_ON_SMALL_PAGES: GlmRuntimeOnSmallPages,
        OURS_PREPARED: GlmRuntimePrepared,
        THEIRS: OnnxRuntimeGenai,
    }
    serve(lambda: kinds[name](folder, threads))


if __name__ == "__main__":
    main()
