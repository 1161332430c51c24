"""Exported graphs run with plain ONNX Runtime calls: no code of ours between test and graph."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

Array = npt.NDArray[np.generic]


class PlainGraph:
    """A graph with its KV cache passed in and out as ordinary arrays."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.caches = [i for i in self.session.get_inputs() if i.name.startswith("past_")]
        presents = [i.name.replace("past_key_values", "present") for i in self.caches]
        self.outputs = ["logits", *presents]
        self.past: list[Array] = []
        self.reset()

    def reset(self, batch: int = 1) -> None:
        """An empty KV cache."""
        dtypes = {
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
            "tensor(int8)": np.int8,
        }
        self.past = [
            np.zeros((batch, i.shape[1], 0, i.shape[3]), dtypes[i.type]) for i in self.caches
        ]

    def run(self, ids: Array, keep: int | None = None, mask: Array | None = None) -> Array:
        """Feed tokens [B, S] after what is cached; logits of the last `keep` (default: all)."""
        batch, new = ids.shape
        length = self.past[0].shape[2] + new
        feeds = {
            "input_ids": ids.astype(np.int64),
            "attention_mask": np.ones((batch, length), np.int64) if mask is None else mask,
            "num_logits_to_keep": np.array([new if keep is None else keep], np.int64),
        }
        feeds |= {i.name: past for i, past in zip(self.caches, self.past, strict=True)}
        logits, *self.past = self.session.run(self.outputs, feeds)
        return logits
