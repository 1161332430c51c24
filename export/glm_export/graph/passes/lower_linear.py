"""Replacement of linear placeholders by the matrix products of the plan."""

import onnx_ir as ir

from glm_export.graph.passes.initializers import DTYPES, get_initializer, replace_node
from glm_export.model.operators import ORT_DOMAIN, PLACEHOLDER_DOMAIN
from glm_export.plan.plan import ExportPlan, TensorPlan, is_wide

_SMALLEST_LENGTH = 1e-30  # avoids a division by zero for a row of zeros


def lower_linear(graph: ir.Graph, plan: ExportPlan, accuracy_level: int) -> int:
    """Linear(x, W, b) -> MatMulNBits(x, codes, scales, zero points, b), or x * W^T + b in float.

    The float product (FusedMatMul with transB) reads the weight as stored, [N, C], so that tied
    embeddings share their bytes. If x has the wide type and W has not, each row of x is divided by
    its length before the product and multiplied by it afterwards, in the wide type. By the
    Cauchy-Schwarz inequality no product is then larger than the length of a row of W.
    """
    nodes = [n for n in graph if n.domain == PLACEHOLDER_DOMAIN and n.op_type == "Linear"]
    for node in nodes:
        weight = node.inputs[1]
        assert weight is not None and weight.name is not None
        tensor = plan.tensors[weight.name]
        if tensor.scheme is None:
            _lower_float(graph, node, tensor, plan)
        else:
            _lower_quantized(graph, node, tensor, plan, accuracy_level)
    return len(nodes)


def _name_product(tensor: TensorPlan) -> str:
    """Return a name for the product; with tied embeddings it differs from the parameter's."""
    name = tensor.name.removesuffix(".weight")
    return "lm_head" if name == "embed_tokens" else name


def _read_bias(graph: ir.Graph, node: ir.Node, plan: ExportPlan) -> ir.Value | None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return None
    assert bias.name is not None
    (segment,) = plan.tensors[bias.name].segments
    return get_initializer(graph, segment, segment.shape)


def _lower_float(graph: ir.Graph, node: ir.Node, tensor: TensorPlan, plan: ExportPlan) -> None:
    (segment,) = tensor.segments
    weight = get_initializer(graph, segment, segment.shape)
    x = node.inputs[0]
    assert x is not None
    before: list[ir.Node] = []
    lengths: ir.Value | None = None
    if is_wide(tensor.name) and segment.dtype != plan.wide_dtype:
        before, lengths = _scale_rows(x, segment.dtype)
        x = before[-1].outputs[0]
    product = ir.node("FusedMatMul", [x, weight], {"transB": 1}, domain=ORT_DOMAIN)
    product.name = _name_product(tensor)
    nodes = [*before, product]
    if lengths is not None:
        nodes += _scale_back(product.outputs[0], lengths, plan.wide_dtype)
    bias = _read_bias(graph, node, plan)
    if bias is not None:
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias]))
    replace_node(node, nodes)


def _scale_rows(x: ir.Value, dtype: str) -> tuple[list[ir.Node], ir.Value]:
    """Divide x by the length of its rows; return the nodes, the last in `dtype`, and lengths."""
    axes = ir.node("Constant", [], {"value_ints": [-1]})
    least = ir.node("Constant", [], {"value_float": _SMALLEST_LENGTH})
    length = ir.node("ReduceL2", [x, axes.outputs[0]], {"keepdims": 1})
    above_zero = ir.node("Max", [length.outputs[0], least.outputs[0]])
    scaled = ir.node("Div", [x, above_zero.outputs[0]])
    narrow = ir.node("Cast", scaled.outputs, {"to": DTYPES[dtype].value})
    return [axes, least, length, above_zero, scaled, narrow], above_zero.outputs[0]


def _scale_back(product: ir.Value, length: ir.Value, dtype: str) -> list[ir.Node]:
    wide = ir.node("Cast", [product], {"to": DTYPES[dtype].value})
    return [wide, ir.node("Mul", [wide.outputs[0], length])]


def _sort_inputs(graph: ir.Graph, node: ir.Node, tensor: TensorPlan) -> ir.Node | None:
    """Sort the inputs if the codes are stored sorted by group: W x = W[:, order] x[order]."""
    if tensor.order is None:
        return None
    order = get_initializer(graph, tensor.order, tensor.order.shape)
    name = f"{_name_product(tensor)}.order"
    return ir.node("Gather", [node.inputs[0], order], {"axis": -1}, name=name)


def _lower_quantized(
    graph: ir.Graph, node: ir.Node, tensor: TensorPlan, plan: ExportPlan, accuracy_level: int
) -> None:
    scheme = tensor.scheme
    assert scheme is not None
    outputs, inputs = tensor.shape
    packed, scales, *rest = tensor.segments
    blocks = scheme.count_blocks(inputs)
    block_bytes = scheme.block_size * scheme.bits // 8
    sort = _sort_inputs(graph, node, tensor)
    operands = [
        sort.outputs[0] if sort else node.inputs[0],
        get_initializer(graph, packed, (outputs, blocks, block_bytes), suffix="_blocks"),
        get_initializer(graph, scales, scales.shape),
        # Tied embeddings store zero points for the lookup, also in a symmetric scheme.
        None if scheme.is_symmetric else get_initializer(graph, rest[0], rest[0].shape),
        None,  # g_idx: no column order
        _read_bias(graph, node, plan),
    ]
    while operands[-1] is None:
        operands.pop()
    attributes: dict[str, int] = {
        "K": inputs,
        "N": outputs,
        "bits": scheme.bits,
        "block_size": scheme.block_size,
        "accuracy_level": accuracy_level,
    }
    product = ir.node("MatMulNBits", operands, attributes, domain=ORT_DOMAIN)
    product.name = _name_product(tensor)
    replace_node(node, [sort, product] if sort else [product])
