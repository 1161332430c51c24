"""Verification: compares the logits of the exported graph in ONNX Runtime with PyTorch's.

Both use the weights in the data file, which PyTorch dequantizes. A difference thus shows an error
of the graph, the packing or a kernel. `evaluate.py` measures the effect of quantization.
"""

from pathlib import Path

import numpy as np
import torch

from glm_export.errors import VerificationError
from glm_export.evaluation.comparison import Comparer
from glm_export.graph.logits_session import GraphSession
from glm_export.model.architectures import DecoderConfig
from glm_export.model.layer_stream import LayerStream
from glm_export.output.stored_parameters import read_stored
from glm_export.plan.options import ExportOptions
from glm_export.plan.plan import ExportPlan
from glm_runtime.arrays import TokenArray
from glm_runtime.folder.manifest import DATA_NAME
from glm_runtime.graph.machine import read_available_memory_bytes

# Largest relative error of centred logits, ||graph - PyTorch|| / ||PyTorch||, by arithmetic.
# float32: sums in another order. float16: some hundred roundings of 2^-11 each. int8 activations:
# each block is rounded to max/127, about 0.6 % of a matrix product's output; four products per
# layer, added like noise, stay below 0.1 for 61 layers. A misplaced tensor gives 1 or more.
# int8 keys and values are rounded to 1/115 of a channel's largest value, once per layer.
_LOGIT_TOLERANCE = {"fp32": 1e-3, "fp16": 5e-2, "int8 activations": 1e-1, "int8 cache": 1e-1}
PROBE_TOKENS = 64


def choose_level(options: ExportOptions, plan: ExportPlan, config: DecoderConfig) -> str:
    """Return the level of the options; "auto" is "full" if memory allows it, else "tensors"."""
    if options.verify != "auto":
        return options.verify
    return "full" if can_run_graph(plan, config) else "tensors"


def can_run_graph(plan: ExportPlan, config: DecoderConfig) -> bool:
    """Return True if ONNX Runtime and one float layer fit into the free memory.

    ONNX Runtime holds the weights twice while it rearranges them for its kernels.
    """
    layer = 4 * max(
        config.hidden_size * 3 * config.intermediate_size, config.vocab_size * config.hidden_size
    )
    return 2 * plan.size_bytes + 2 * layer < read_available_memory_bytes()


def verify_graph(
    folder: Path, config: DecoderConfig, plan: ExportPlan, options: ExportOptions
) -> dict[str, float]:
    """Run the folder's graph and the PyTorch decoder on the same tokens.

    Returns:
        `logit_error` (relative, centred logits), `logit_tolerance`, `kl_mean` in nats, `tokens`.

    Raises:
        OutputError: ONNX Runtime cannot run the graph, for example for lack of memory.
        VerificationError: the error is above the tolerance, or NaN.
    """
    ids = _probe_tokens(config)
    data_path = folder / DATA_NAME
    reference = LayerStream(config, lambda name: read_stored(plan.tensors[name], data_path))
    with torch.inference_mode():
        expected = reference.hidden_states(ids)[0] @ reference.read_head().T
    found = torch.from_numpy(GraphSession(folder).compute_logits(ids)[0])
    error = _relative_error(found, expected)
    tolerance = _LOGIT_TOLERANCE[_arithmetic(plan, options)]
    if not error <= tolerance:
        raise VerificationError(
            f"the graph's logits differ from PyTorch's by {error:.2g}, but rounding explains at "
            f"most {tolerance:.2g}; please report this with the model's config.json."
        )
    comparer = Comparer()
    comparer.add(expected, found, torch.from_numpy(ids[0]))
    return {
        "logit_error": error,
        "logit_tolerance": tolerance,
        "kl_mean": comparer.summarize().kl_mean,
        "tokens": float(ids.shape[1]),
    }


def _probe_tokens(config: DecoderConfig) -> TokenArray:
    """Return fixed token ids, evenly spaced over the vocabulary."""
    length = min(PROBE_TOKENS, config.context_length)
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.integers(0, config.vocab_size, size=(1, length), dtype=np.int64)


def _arithmetic(plan: ExportPlan, options: ExportOptions) -> str:
    is_quantized = any(tensor.scheme for tensor in plan.tensors.values())
    if is_quantized and options.chosen_accuracy_level == 4:
        return "int8 activations"
    if options.kv_cache == "int8":
        return "int8 cache"
    return plan.dtype


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    centred = expected - expected.mean(-1, keepdim=True)
    difference = (found - found.mean(-1, keepdim=True)) - centred
    return float(difference.norm() / centred.norm())
