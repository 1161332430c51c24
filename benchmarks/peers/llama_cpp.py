"""llama.cpp's route: a `glm4` checkpoint to GGUF, quantized and run by llama.cpp itself.

    python -m benchmarks.peers.llama_cpp convert CHECKPOINT FILE.gguf
    python -m benchmarks.peers.llama_cpp quantize FLOATS.gguf FILE.gguf Q4_K_M
    python -m benchmarks.peers.llama_cpp logits FILE.gguf WINDOWS.json > LOGITS
    python -m benchmarks.peers.llama_cpp serve FILE.gguf THREADS CONTEXT

This runs in an environment of its own (`llama-cpp-requirements.txt`). `gguf_file.py` writes the
file, without a vocabulary, since token ids are fed directly; `llama_cpp` does the rest.
"""

import ctypes
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt

from benchmarks.peers.gguf_file import convert
from benchmarks.processes import serve

FloatArray = npt.NDArray[np.float32]
_GGML_FLOAT32 = 0  # ggml.h, enum ggml_type
# This must stay alive, since llama.cpp calls it as long as it runs.
_SILENCE = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)


def quantize(source: Path, target: Path, file_type: str) -> None:
    """What `llama-quantize SOURCE TARGET FILE_TYPE` does, without an importance matrix."""
    params = llama_cpp.llama_model_quantize_default_params()
    prefix = "LLAMA_FTYPE_ALL_" if file_type == "F32" else "LLAMA_FTYPE_MOSTLY_"
    params.ftype = getattr(llama_cpp, prefix + file_type)
    code = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(params)
    )
    if code:
        sys.exit(f"llama_cpp.py: llama.cpp cannot quantize to {file_type} (code {code})")


def measure(path: Path) -> dict[str, object]:
    """What is stored: bytes of all tensors, numbers in them, how many tensors of each type."""
    tensors = gguf.GGUFReader(path).tensors
    types = [tensor.tensor_type.name for tensor in tensors]
    return {
        "tensor_bytes": sum(int(tensor.n_bytes) for tensor in tensors),
        "parameters": sum(int(tensor.n_elements) for tensor in tensors),
        "types": {name: types.count(name) for name in sorted(set(types))},
    }


def compute_logits(path: Path, windows: Sequence[Sequence[int]]) -> Iterator[FloatArray]:
    """Logits [S, V] of each window, every position, each window from position 0.

    Keys and values are kept in float32, so that only the weights' types make a difference;
    llama.cpp's default of float16 would cost it a little.
    """
    model = llama_cpp.llama_model_load_from_file(
        os.fsencode(path), llama_cpp.llama_model_default_params()
    )
    context = _open_context(model, max(map(len, windows)))
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    for window in windows:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch = _fill_batch(window)
        code = llama_cpp.llama_decode(context, batch)
        if code:
            sys.exit(f"llama_cpp.py: llama.cpp cannot run {path.name} (code {code})")
        logits = llama_cpp.llama_get_logits(context)
        yield np.ctypeslib.as_array(logits, (len(window), vocabulary)).copy()
        llama_cpp.llama_batch_free(batch)


def _open_context(model: object, length: int) -> object:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = length
    params.n_threads = params.n_threads_batch = os.cpu_count() or 1
    params.type_k = params.type_v = _GGML_FLOAT32
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context: object = llama_cpp.llama_init_from_model(model, params)
    if context is None:
        sys.exit("llama_cpp.py: llama.cpp refuses the model; what it said is above")
    return context


def _fill_batch(window: Sequence[int]) -> Any:
    batch = llama_cpp.llama_batch_init(len(window), 0, 1)
    batch.n_tokens = len(window)
    for index, token in enumerate(window):
        batch.token[index] = token
        batch.pos[index] = index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
        batch.logits[index] = True
    return batch


class LlamaCpp:
    """A loaded model with llama.cpp's own defaults.

    The file is mapped, keys and values are in float16, and flash attention is llama.cpp's choice.
    """

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
        """See `processes.System`."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        tokens = list(prompt)
        for _ in range(num_tokens):
            array = (llama_cpp.llama_token * len(tokens))(*tokens)
            batch = llama_cpp.llama_batch_get_one(array, len(tokens))
            code = llama_cpp.llama_decode(self._context, batch)
            if code:
                sys.exit(f"llama_cpp.py: llama.cpp cannot go on (code {code})")
            logits = llama_cpp.llama_get_logits_ith(self._context, -1)
            token = int(np.ctypeslib.as_array(logits, (self._size,)).argmax())
            yield token
            tokens = [token]


def main(command: str, source: Path, *arguments: str) -> None:
    """Run a command; it prints JSON, or raw float32 for `logits`."""
    if command == "serve":
        serve(lambda: LlamaCpp(source, *map(int, arguments)))
        return
    if command == "logits":
        windows = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        for logits in compute_logits(source, windows):
            sys.stdout.buffer.write(logits.tobytes())
        return
    target = Path(arguments[0])
    if command == "convert":
        convert(source, target)
    else:
        quantize(source, target, arguments[1])
    print(json.dumps(measure(target)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
