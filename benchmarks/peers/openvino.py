"""OpenVINO GenAI as a worker process: greedy answers to prompts of token ids.

    python -m benchmarks.peers.openvino FOLDER THREADS

`optimum-cli export openvino` made FOLDER. This runs in the environment of
`openvino-requirements.txt`. `processes.py` says what is timed.
"""

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import openvino
import openvino_genai

from benchmarks.processes import serve


class _Queue(openvino_genai.StreamerBase):
    """A streamer that hands tokens over as they come."""

    def __init__(self, tokens: "queue.Queue[int | None]") -> None:
        super().__init__()
        self._tokens = tokens

    def write(self, token: int | list[int]) -> openvino_genai.StreamingStatus:
        for one in token if isinstance(token, list) else [token]:
            self._tokens.put(one)
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        self._tokens.put(None)


class OpenVino:
    """A loaded model."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._pipeline = openvino_genai.LLMPipeline(
            str(folder), "CPU", INFERENCE_NUM_THREADS=threads
        )

    def generate(self, prompt: Sequence[int], num_tokens: int) -> Iterator[int]:
        """See `processes.System`."""
        ids = np.array([prompt], np.int64)
        inputs = openvino_genai.TokenizedInputs(
            openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids))
        )
        config = openvino_genai.GenerationConfig(
            max_new_tokens=num_tokens, ignore_eos=True, do_sample=False
        )
        tokens: queue.Queue[int | None] = queue.Queue()
        work = threading.Thread(
            target=self._pipeline.generate, args=(inputs, config, _Queue(tokens))
        )
        work.start()
        while (token := tokens.get()) is not None:
            yield token
        work.join()


if __name__ == "__main__":
    serve(lambda: OpenVino(Path(sys.argv[1]), int(sys.argv[2])))
