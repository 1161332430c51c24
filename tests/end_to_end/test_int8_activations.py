"""What ships computes matrix products with int8 activations (accuracy_level 4): derived bounds.

The kernel rounds each block of activations to whole steps of max|x| / 127, so an activation is off
by at most half a step. One product is held to the worst case of that; a whole model, where errors
add up like noise, to what the same rounding does in PyTorch.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoModelForCausalLM, PreTrainedModel

from glm_export import ExportOptions, export
from glm_quantize import METHODS, Scheme, dequantize, pack_rows
from support.dequantized import load_dequantized
from support.graphs import PlainGraph

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
# Two independent draws of rounding noise over 64 positions x 4,000 logits differ by a few percent
# in size; a wrong kernel setting or a doubled rounding differs by more than half.
NOISE_FACTOR = 1.5
SCHEMES = [Scheme(4, 32, False), Scheme(4, 128, True), Scheme(8, 32, False), Scheme(8, 128, False)]


def steps_of(x: np.ndarray, block: int) -> np.ndarray:
    """[..., blocks] step of each block of the last axis."""
    return np.abs(x.reshape(*x.shape[:-1], -1, block)).max(-1) / 127


def run_product(x: np.ndarray, weight: np.ndarray, scheme: Scheme) -> tuple[np.ndarray, np.ndarray]:
    """One MatMulNBits node: its output, and the weight it computes with."""
    rows = METHODS["rtn"](weight, scheme)
    packed = pack_rows(rows)
    outputs, inputs = weight.shape
    blocks = inputs // scheme.block_size
    tensors = {"b": packed.packed.reshape(outputs, blocks, -1), "s": packed.scales}
    if packed.zero_points is not None:
        tensors["z"] = packed.zero_points
    node = helper.make_node(
        "MatMulNBits",
        ["x", *tensors],
        ["y"],
        domain="com.microsoft",
        K=inputs,
        N=outputs,
        bits=scheme.bits,
        block_size=scheme.block_size,
        accuracy_level=4,
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*x.shape[:-1], outputs])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0], dequantize(rows)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
@pytest.mark.parametrize("tokens", [1, 9])
def test_one_product_stays_within_the_worst_case(scheme: Scheme, tokens: int) -> None:
    """|y - exact| <= sum over blocks of step / 2 * sum |w|, plus float32 summation."""
    random = np.random.default_rng(3)
    x = random.standard_t(3, size=(1, tokens, 512)).astype(np.float32)  # with outliers
    found, weight = run_product(x, random.normal(size=(96, 512)).astype(np.float32), scheme)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    columns = np.abs(weight).reshape(96, -1, scheme.block_size).sum(-1)
    bound = steps_of(x, scheme.block_size) / 2 @ columns.T
    error = np.abs(found - exact)
    assert (error <= bound * 1.001 + 1e-4).all()
    assert error.max() > 1e-3 * bound.max(), "no int8 rounding at all: accuracy_level 4 was lost"


def round_linear_inputs(model: PreTrainedModel, block: int) -> None:
    """Make every Linear of a transformers model see int8-rounded inputs."""

    def round_input(_: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        blocked = args[0].unflatten(-1, (-1, block))
        step = (blocked.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
        return ((blocked / step).round().mul(step).flatten(-2),)

    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(round_input)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_shipped_model_errs_as_int8_rounding_does(tmp_path: Path, scheme: Scheme) -> None:
    """Default methods, but one run of the slow one is enough."""
    options = ExportOptions(
        SAMPLE,
        tmp_path / "out",
        method="rtn" if scheme.name == "int4-b128-sym" else None,
        quant=f"int{scheme.bits}",
        block_size=scheme.block_size,
        is_symmetric=scheme.is_symmetric,
        verify="tensors",
    )
    export(options)
    model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32).eval()
    load_dequantized(options.output, model)
    ids = np.random.default_rng(0).integers(0, 4000, (1, 64))
    with torch.inference_mode():
        exact = model(torch.from_numpy(ids)).logits.numpy()
        round_linear_inputs(model, scheme.block_size)
        rounded = model(torch.from_numpy(ids)).logits.numpy()
    found = PlainGraph(options.output).run(ids)
    noise = np.linalg.norm(rounded - exact)
    assert np.linalg.norm(found - exact) < NOISE_FACTOR * noise
    assert np.linalg.norm(found - exact) > noise / NOISE_FACTOR, "accuracy_level 4 was lost"
