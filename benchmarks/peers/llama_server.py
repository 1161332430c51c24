"""llama.cpp as a worker process: greedy answers to prompts of token ids.

    python benchmarks/peers/llama_server.py FILE.gguf THREADS CONTEXT

With llama.cpp's own defaults: the file mapped, keys and values in float16, flash attention where it
chooses so. Runs in the environment of `llama-cpp-requirements.txt`; `answering.py` says what is
timed.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import llama_cpp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from answering import serve  # it lies beside this folder

# Kept here, since llama.cpp calls it as long as it runs.
_SILENCE = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)


class LlamaCpp:
    """A loaded model."""

    def __init__(self, path: Path, threads: int, length: int) -> None:
        llama_cpp.llama_log_set(_SILENCE, None)
        self._model = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = length
        params.n_threads = params.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._size = llama_cpp.llama_vocab_n_tokens(vocabulary)

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `answering.System`."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        tokens = list(prompt)
        for _ in range(num_tokens):
            array = (llama_cpp.llama_token * len(tokens))(*tokens)
            batch = llama_cpp.llama_batch_get_one(array, len(tokens))
            code = llama_cpp.llama_decode(self._context, batch)
            if code:
                sys.exit(f"llama_server.py: llama.cpp cannot go on (code {code})")
            logits = llama_cpp.llama_get_logits_ith(self._context, -1)
            token = int(np.ctypeslib.as_array(logits, (self._size,)).argmax())
            yield token
            tokens = [token]


if __name__ == "__main__":
    serve(lambda: LlamaCpp(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
