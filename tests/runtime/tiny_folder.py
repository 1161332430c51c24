"""A real, tiny exported folder, made without the exporter: random weights, GroupQueryAttention.

The graph keeps the contract the runtime relies on (names, shapes, `num_logits_to_keep`), so the
runtime's tests need neither a checkpoint nor torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from glm_runtime.folder.manifest import (
    Manifest,
    ModelEntry,
    RecipeEntry,
    SourceEntry,
    TensorEntry,
    TensorSource,
    VerificationEntry,
    describe_file,
    write_manifest,
)

SPECIAL_TOKENS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
CORPUS = (
    "In the beginning God created the heaven and the earth. And the earth was without form.",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "白日依山尽，黄河入海流。欲穷千里目，更上一层楼。",
    "The quick brown fox jumps over the lazy dog, 0123456789 times!",
)
CHAT_TEMPLATE = (
    "[gMASK]<sop>"
    "{%- for message in messages %}"
    "{%- if message.role not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('unknown role ' ~ message.role) }}"
    "{%- endif %}"
    "{{- '<|' ~ message.role ~ '|>\n' ~ message.content }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class TinyShape:
    """The sizes of the tiny model."""

    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    hidden_size: int = 32
    context_length: int = 256
    dtype: str = "float32"
    seed: int = 7


def train_tokenizer() -> Tokenizer:
    """A byte-level BPE over a few lines of English and Chinese, with GLM's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    specials = [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS]
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def build_tiny_folder(folder: Path, shape: TinyShape | None = None) -> Path:
    """Write a complete folder; the same shape gives the same bytes."""
    shape = shape or TinyShape()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    vocab_size = -(-tokenizer.get_vocab_size() // 64) * 64 + 64
    _write_graph(folder, shape, vocab_size)
    eos = [tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|user|>")]
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", {"model_type": "glm4", "vocab_size": vocab_size})
    write_json(folder / "generation_config.json", {"do_sample": False, "eos_token_id": eos})
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|user|>"})
    write_json(folder / "genai_config.json", {"model": {"type": "chatglm"}})
    (folder / "chat_template.jinja").write_bytes(CHAT_TEMPLATE.encode())
    (folder / "README.md").write_bytes(b"# tiny\n")
    model = ModelEntry(
        num_layers=shape.num_layers,
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        hidden_size=shape.hidden_size,
        vocab_size=vocab_size,
        tokenizer_vocab_size=tokenizer.get_vocab_size(),
        context_length=shape.context_length,
        cache_dtype=shape.dtype,
        eos_token_ids=tuple(eos),
        pad_token_id=eos[0],
    )
    seal_folder(folder, model)
    return folder


def seal_folder(folder: Path, model: ModelEntry) -> Manifest:
    """Write the manifest for the files as they are now."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "glm_manifest.json")
    files = {name: describe_file(folder / name) for name in names}
    embedding_bytes = model.vocab_size * model.hidden_size * 4
    embedding = TensorEntry(
        name="embed_tokens",
        shape=(model.vocab_size, model.hidden_size),
        scheme="float32",
        size_bytes=embedding_bytes,
        initializers=("embed_tokens",),
        sources=(TensorSource("model.safetensors", "model.embed_tokens.weight", 0),),
    )
    manifest = Manifest(
        tool_version="0.1.0",
        source=SourceEntry("tiny", "glm4", "Glm4ForCausalLM", {}),
        recipe=RecipeEntry("none", "none", None, None, model.cache_dtype, "cpu", None),
        model=model,
        tensors=(embedding,),
        parameters=model.vocab_size * model.hidden_size * 2,
        bits_per_weight=32.0,
        size_bytes=sum(entry.size_bytes for entry in files.values()),
        files=files,
        verification=VerificationEntry("none", is_passed=True, metrics={}),
    )
    write_manifest(folder, manifest)
    return manifest


def write_json(path: Path, content: object) -> None:
    path.write_bytes(json.dumps(content, indent=2).encode())


class _Graph:
    """Collects nodes and initializers; each method returns the name of what it made."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def node(self, op: str, inputs: list[str], outputs: list[str] | None = None, **rest) -> str:
        outputs = outputs or [f"{op}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(op, inputs, outputs, **rest))
        return outputs[0]

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str, *shape: int, gain: float = 1.0) -> str:
        spread = gain / np.sqrt(shape[0])
        return self.constant(name, (self._random.normal(size=shape) * spread).astype(np.float32))


def _write_graph(folder: Path, shape: TinyShape, vocab_size: int) -> None:
    graph = _Graph(shape.seed)
    dtype = TensorProto.FLOAT if shape.dtype == "float32" else TensorProto.FLOAT16
    _add_shared(graph, shape, vocab_size)
    hidden = graph.node("Gather", ["embed_tokens", "input_ids"])
    for layer in range(shape.num_layers):
        hidden = _add_layer(graph, shape, hidden, layer, dtype)
    hidden = graph.node("LayerNormalization", [hidden, "norm"])
    first = graph.node("Neg", ["num_logits_to_keep"])
    last = graph.constant("slice_end", np.array([2**62], np.int64))
    axis = graph.constant("slice_axis", np.array([1], np.int64))
    kept = graph.node("Slice", [hidden, first, last, axis])
    head = graph.weight("lm_head", shape.hidden_size, vocab_size, gain=4.0)
    logits = graph.node("MatMul", [kept, head])
    graph.node("Cast", [logits], ["logits"], to=dtype)
    graph.constant("num_logits_to_keep", np.array([1], np.int64))
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "tiny",
            _inputs(shape, dtype),
            _outputs(shape, vocab_size, dtype),
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    onnx.save_model(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=1024,
    )


def _add_shared(graph: _Graph, shape: TinyShape, vocab_size: int) -> None:
    graph.weight("embed_tokens", vocab_size, shape.hidden_size, gain=np.sqrt(vocab_size))
    graph.constant("norm", np.ones(shape.hidden_size, np.float32))
    rotary_half = shape.head_dim // 4
    frequency = 1e4 ** (-np.arange(rotary_half) / rotary_half)
    angle = np.arange(shape.context_length)[:, None] * frequency
    dtype = np.dtype(shape.dtype)
    graph.constant("cos", np.cos(angle).astype(dtype))
    graph.constant("sin", np.sin(angle).astype(dtype))
    one = graph.constant("one", np.array([1], np.int64))
    length = graph.node("ReduceSum", ["attention_mask", one], keepdims=0)
    before = graph.node("Sub", [length, one])
    graph.node("Cast", [before], ["seqlens_k"], to=TensorProto.INT32)
    mask_shape = graph.node("Shape", ["attention_mask"])
    scalar = graph.constant("scalar_one", np.array(1, np.int64))
    total = graph.node("Gather", [mask_shape, scalar])
    graph.node("Cast", [total], ["total_length"], to=TensorProto.INT32)


def _add_layer(graph: _Graph, shape: TinyShape, hidden: str, layer: int, dtype: int) -> str:
    query_size = shape.num_heads * shape.head_dim
    packed_size = query_size + 2 * shape.num_kv_heads * shape.head_dim
    normed = graph.node("LayerNormalization", [hidden, "norm"])
    weight = graph.weight(f"qkv.{layer}", shape.hidden_size, packed_size, gain=1.5)
    packed = graph.node("Cast", [graph.node("MatMul", [normed, weight])], to=dtype)
    past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
    present = [f"present.{layer}.{part}" for part in ("key", "value")]
    attended = graph.node(
        "GroupQueryAttention",
        [packed, "", "", *past, "seqlens_k", "total_length", "cos", "sin"],
        [f"attended_{layer}", *present],
        domain="com.microsoft",
        num_heads=shape.num_heads,
        kv_num_heads=shape.num_kv_heads,
        do_rotary=1,
        rotary_interleaved=1,
    )
    attended = graph.node("Cast", [attended], to=TensorProto.FLOAT)
    weight = graph.weight(f"out.{layer}", query_size, shape.hidden_size)
    hidden = graph.node("Add", [hidden, graph.node("MatMul", [attended, weight])])
    normed = graph.node("LayerNormalization", [hidden, "norm"])
    weight = graph.weight(f"up.{layer}", shape.hidden_size, 64)
    inner = graph.node("Relu", [graph.node("MatMul", [normed, weight])])
    weight = graph.weight(f"down.{layer}", 64, shape.hidden_size)
    return graph.node("Add", [hidden, graph.node("MatMul", [inner, weight])])


def _inputs(shape: TinyShape, dtype: int) -> list[onnx.ValueInfoProto]:
    value = helper.make_tensor_value_info
    cache = ["B", shape.num_kv_heads, "P", shape.head_dim]
    return [
        value("input_ids", TensorProto.INT64, ["B", "S"]),
        value("attention_mask", TensorProto.INT64, ["B", "T"]),
        *(value(name, dtype, cache) for name in _cache_names(shape, "past_key_values")),
        value("num_logits_to_keep", TensorProto.INT64, [1]),
    ]


def _outputs(shape: TinyShape, vocab_size: int, dtype: int) -> list[onnx.ValueInfoProto]:
    value = helper.make_tensor_value_info
    cache = ["B", shape.num_kv_heads, "T", shape.head_dim]
    return [
        value("logits", dtype, ["B", "K", vocab_size]),
        *(value(name, dtype, cache) for name in _cache_names(shape, "present")),
    ]


def _cache_names(shape: TinyShape, prefix: str) -> list[str]:
    layers = range(shape.num_layers)
    return [f"{prefix}.{layer}.{part}" for layer in layers for part in ("key", "value")]
