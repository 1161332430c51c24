"""The graph's contract: names, shapes, the optional input, and nothing of ours or the machine's."""

from collections import Counter
from pathlib import Path

import onnx
import pytest

from glm_export import ExportOptions, export
from support.tiny_models import TinyShape, build_model, write_checkpoint

PER_LAYER_INT4 = {"MatMulNBits": 4, "GroupQueryAttention": 1, "Split": 1, "QuickGelu": 1, "Mul": 1}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.GraphProto:
    folder = tmp_path_factory.mktemp("graph")
    checkpoint = write_checkpoint(folder / "checkpoint", build_model(TinyShape()))
    export(ExportOptions(checkpoint, folder / "out", verify="none"))
    model = onnx.load(str(folder / "out" / "model.onnx"), load_external_data=False)
    assert {entry.domain for entry in model.opset_import} == {"", "com.microsoft"}
    assert not model.metadata_props
    return model.graph


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    shape = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param for d in shape]


def test_inputs_and_outputs(graph: onnx.GraphProto) -> None:
    past = ["batch_size", 2, "past_sequence_length", 32]
    present = ["batch_size", 2, "total_sequence_length", 32]
    inputs = {value.name: dims(value) for value in graph.input}
    outputs = {value.name: dims(value) for value in graph.output}
    assert inputs.pop("input_ids") == ["batch_size", "sequence_length"]
    assert inputs.pop("attention_mask") == ["batch_size", "total_sequence_length"]
    assert inputs.pop("num_logits_to_keep") == [1]
    assert outputs.pop("logits") == ["batch_size", 1, 320]
    parts = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    assert inputs == {f"past_key_values.{part}": past for part in parts}
    assert outputs == {f"present.{part}": present for part in parts}


def test_optional_input_has_a_default(graph: onnx.GraphProto) -> None:
    defaults = {t.name: t for t in graph.initializer}
    assert onnx.numpy_helper.to_array(defaults["num_logits_to_keep"]).tolist() == [1]


def test_attributes_have_one_order_everywhere(graph: onnx.GraphProto) -> None:
    """torch takes them from onnx, in an order that is another one on Windows: so were the bytes."""
    orders = [[a.name for a in node.attribute] for node in graph.node if node.domain == ""]
    assert max(map(len, orders)) > 1
    assert orders == [sorted(names) for names in orders]


def test_kernels_of_a_layer(graph: onnx.GraphProto) -> None:
    found = Counter(node.op_type for node in graph.node)
    assert found["MatMulNBits"] == 2 * 4 + 1
    assert found["GatherBlockQuantized"] == 1
    for name in ("GroupQueryAttention", "Split", "QuickGelu"):
        assert found[name] == 2, name
    assert found["Mul"] == 2 + 1, "one of each layer's MLP, and one that moves padding"
    # Per layer: two sums with a norm after them, but the last sum goes to the selection.
    assert found["SkipSimplifiedLayerNormalization"] == 2 * 2 - 1
    assert found["Add"] - 3 <= 1, "a residual sum was left unfused"
    # What moves padding runs at every step: a handful of nodes on a few numbers.
    assert found["CumSum"] == found["ScatterElements"] == found["ReduceSum"] == 1


def test_nothing_of_ours_or_the_machine_is_left(graph: onnx.GraphProto) -> None:
    assert {node.domain for node in graph.node} <= {"", "com.microsoft"}
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
    text = graph.SerializeToString()
    assert str(Path(__file__).parents[2]).encode() not in text


def test_every_weight_is_external_and_none_overlaps(graph: onnx.GraphProto) -> None:
    spans = set()
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            assert tensor.name == "num_logits_to_keep"
            continue
        entry = {item.key: item.value for item in tensor.external_data}
        assert entry["location"] == "model.onnx.data"
        spans.add((int(entry["offset"]), int(entry["length"])))
    ends = 0
    for offset, length in sorted(spans):
        assert offset >= ends
        ends = offset + length
