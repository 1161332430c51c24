"""Load a folder's graph without laying its weights out anew, and run one token through it.

    python benchmarks/load_graph.py FOLDER

For models that fill the memory: the data file is mapped, nothing is copied. One JSON line.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from glm_runtime.folder.manifest import read_manifest
from glm_runtime.graph.machine import read_peak_memory_bytes


def main() -> None:
    """Entry point."""
    folder = Path(sys.argv[1])
    model = read_manifest(folder).model
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    started = time.perf_counter()
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    loaded = time.perf_counter()
    empty = np.zeros((1, model.num_kv_heads, 0, model.head_dim), dtype=model.cache_dtype)
    feeds = {one.name: empty for one in session.get_inputs() if one.name.startswith("past_key")}
    feeds |= {name: np.ones((1, 1), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    (logits,) = session.run(["logits"], feeds)
    figures = {
        "load_seconds": round(loaded - started, 1),
        "first_token_seconds": round(time.perf_counter() - loaded, 1),
        "peak_rss_bytes": read_peak_memory_bytes(),
        "logits_shape": list(logits.shape),
        "is_finite": bool(np.isfinite(logits).all()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
