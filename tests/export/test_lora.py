"""Merging LoRA adapters: by the definition, row by row, refused by name, and recorded."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm_export import Adapter, ExportOptions
from glm_export.checkpoint.adapters import parse_adapter
from glm_export.checkpoint.source_model import SourceModel, open_source
from glm_export.errors import CheckpointError, ExportError, OptionsError, UnsupportedModelError
from support.broken_checkpoints import (
    WEIGHTS,
    edit_config,
    from_array,
    random_tensors,
    replace_tensors,
    write_safetensors,
    write_small,
)
from support.chatglm_checkpoints import write_chatglm
from support.lora_adapters import (
    CONFIG,
    LAYER,
    MODULES,
    define_change,
    draw,
    draw_change,
    read_array,
    write_adapter,
)
from support.prequantized_checkpoints import Prequantized, write_prequantized
from support.prequantized_tensors import GPTQ, Recipe
from support.refusals import assert_export_refused, assert_sentence
from support.tiny_models import TinyShape, build_model

Q_PROJ, GATE_UP = f"{LAYER}self_attn.q_proj", f"{LAYER}mlp.gate_up_proj"
Floats = np.ndarray[Any, np.dtype[np.float32]]


def open_merged(tmp_path: Path, *adapters: Adapter) -> SourceModel:
    folder = tmp_path / "base"
    return open_source(folder if folder.exists() else write_small(folder), adapters=adapters)


def assert_merged(source: SourceModel, changes: dict[str, Floats], atol: float = 0) -> None:
    """Every tensor is the base's plus its change, bit for bit or to `atol`; no other is changed."""
    for name, tensor in random_tensors().items():
        expected = read_array(tensor)
        expected = expected + changes.get(name, np.float32(0))
        found = source.checkpoint.read(name)
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=name)


def test_every_module_gets_its_change(tmp_path: Path) -> None:
    """q, v, gate_up and down; the fused qkv and gate_up have their rows in the right places."""
    source = open_merged(tmp_path, Adapter(write_adapter(tmp_path / "lora")))
    tensors = draw_change(MODULES)
    changes = {f"{module}.weight": define_change(tensors, module, 2.0) for module in MODULES}
    assert_merged(source, changes)
    stored = {name: read_array(tensor) for name, tensor in random_tensors().items()}
    rows = [f"{LAYER}self_attn.{part}_proj.weight" for part in "qkv"]
    expected = np.concatenate([stored[name] + changes.get(name, 0) for name in rows])
    np.testing.assert_array_equal(source.read_parameter("layers.0.qkv_proj.weight"), expected)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 2.0),
        ({"lora_alpha": 1}, 0.5),
        ({"use_rslora": True, "r": 2, "lora_alpha": 4}, 4 / np.sqrt(2)),
        ({"alpha_pattern": {"q_proj": 8}}, 4.0),
        ({"alpha_pattern": {"layers.0.self_attn.q_proj": 8}}, 4.0),
        ({"alpha_pattern": {r"^model.*\.q_proj": 8}}, 4.0),
        ({"alpha_pattern": {"proj": 8, "v_proj": 16}}, 2.0),  # a name from a dot on, or nothing
        ({"r": 4, "rank_pattern": {"q_proj": 2}, "lora_alpha": 4}, 2.0),
        ({"r": 4, "rank_pattern": {"q_proj": 2}, "use_rslora": True}, 4 / np.sqrt(2)),
        ({"fan_in_fan_out": True, "init_lora_weights": "gaussian"}, 2.0),
    ],
    ids=str,
)
def test_the_factor(tmp_path: Path, settings: dict[str, Any], factor: float) -> None:
    """As PEFT's `LoraLayer.update_layer` and `get_pattern_key` have it; PEFT itself is compared
    with in `end_to_end/test_lora.py`."""
    tensors = draw_change({Q_PROJ: MODULES[Q_PROJ]})
    source = open_merged(tmp_path, Adapter(write_adapter(tmp_path / "lora", tensors, **settings)))
    stored = read_array(random_tensors()[f"{Q_PROJ}.weight"])
    expected = stored + define_change(tensors, Q_PROJ, factor)
    found = source.checkpoint.read(f"{Q_PROJ}.weight")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_several_adapters_with_weights(tmp_path: Path) -> None:
    first = {Q_PROJ: MODULES[Q_PROJ], GATE_UP: MODULES[GATE_UP]}
    second = {name.replace("lora", "x"): value for name, value in draw_change(first).items()}
    second = {name.replace(".x_", ".lora_"): value * 2 for name, value in second.items()}
    second = {name: value for name, value in second.items() if "gate" not in name}
    adapters = (
        Adapter(write_adapter(tmp_path / "lora", draw_change(first))),
        Adapter(write_adapter(tmp_path / "other", second), weight=-0.5),
    )
    changes = {f"{one}.weight": define_change(draw_change(first), one, 2.0) for one in first}
    changes[f"{Q_PROJ}.weight"] += define_change(second, Q_PROJ, -1.0)
    # Each of two additions rounds a number below 2 to a multiple of 2^-23.
    assert_merged(open_merged(tmp_path, *adapters), changes, atol=2**-22)


def test_whole_tensors(tmp_path: Path) -> None:
    """modules_to_save, a trained bias, and a bias of B."""
    head, norm, bias = "lm_head.weight", "model.norm.weight", f"{Q_PROJ}.bias"
    replaced = {head: draw("head", (320, 64)), norm: draw("norm", (64,))}
    k_bias = f"{LAYER}self_attn.k_proj.bias"
    own = draw_change({Q_PROJ: MODULES[Q_PROJ]}) | replaced
    own |= {f"{Q_PROJ}.lora_B.bias": draw("b", (64,)), k_bias: draw("k", (32,))}
    folder = write_adapter(tmp_path / "lora", own, lora_bias=True, modules_to_save=["lm_head"])
    source = open_merged(tmp_path, Adapter(folder))
    for name, values in (replaced | {k_bias: own[k_bias]}).items():
        np.testing.assert_array_equal(source.checkpoint.read(name), values)
    expected = read_array(random_tensors()[bias]) + 2 * own[f"{Q_PROJ}.lora_B.bias"]
    np.testing.assert_array_equal(source.checkpoint.read(bias), expected)


def test_an_embedding(tmp_path: Path) -> None:
    """Its change is transposed. PEFT saves the embedding beside it, which has no weight."""
    name = "model.embed_tokens"
    down, up = draw("A", (2, 320)), draw("B", (64, 2))
    base = read_array(random_tensors()[f"{name}.weight"])
    own = {f"{name}.lora_embedding_A": down, f"{name}.lora_embedding_B": up}
    own |= {f"{name}.base_layer.weight": base}
    adapter = Adapter(write_adapter(tmp_path / "lora", own), weight=0.5)
    assert_merged(open_merged(tmp_path, adapter), {f"{name}.weight": (up @ down).T})
    source = open_merged(tmp_path, adapter)
    some = source.checkpoint.read_rows(f"{name}.weight", 100, 103)
    np.testing.assert_array_equal(some, base[100:103] + (up @ down).T[100:103])


@pytest.mark.parametrize("is_split", [True, False])
def test_gate_and_up_in_parts(tmp_path: Path, is_split: bool) -> None:
    """The checkpoint, or the adapter, has them one by one, and the other has `gate_up_proj`."""
    gate, up = (f"{LAYER}mlp.{part}_proj" for part in ("gate", "up"))
    base = write_small(tmp_path / "base")
    whole = read_array(random_tensors()[f"{GATE_UP}.weight"])
    if is_split:
        parts = {f"{gate}.weight": whole[:96], f"{up}.weight": whole[96:]}
        added = {name: from_array(rows) for name, rows in parts.items()}
        replace_tensors(base, drop=[f"{GATE_UP}.weight"], add=added)
        own = draw_change({GATE_UP: (192, 64)})
        change = define_change(own, GATE_UP, 2.0)
    else:
        own = draw_change({gate: (96, 64), up: (96, 64)})
        change = np.concatenate([define_change(own, part, 2.0) for part in (gate, up)])
    source = open_merged(tmp_path, Adapter(write_adapter(tmp_path / "lora", own)))
    found = source.read_parameter("layers.0.gate_up_proj.weight")
    np.testing.assert_array_equal(found, whole + change)


def test_the_names_of_chatglm(tmp_path: Path) -> None:
    write_chatglm(tmp_path / "base", build_model(TinyShape(model_type="glm")), 1.0)
    module = "transformer.encoder.layers.1.self_attention.query_key_value"
    own = draw_change({module: (256, 128)})
    plain = open_source(tmp_path / "base").read_parameter("layers.1.qkv_proj.weight")
    source = open_merged(tmp_path, Adapter(write_adapter(tmp_path / "lora", own)))
    found = source.read_parameter("layers.1.qkv_proj.weight")
    np.testing.assert_array_equal(found, plain + define_change(own, module, 2.0))


def test_memory_is_that_of_a_run_of_rows(tmp_path: Path) -> None:
    """A whole B A has 24 MB here; what is held is A (64 KB), rows of B, and a run of 4 MB."""
    shape = (3072, 2048)
    source = open_merged(tmp_path, Adapter(write_adapter(tmp_path / "lora")))
    own = draw_change({Q_PROJ: shape}, rank=8)
    wide = write_adapter(tmp_path / "wide", own, r=8)
    base = tmp_path / "wide_base"
    write_small(base)
    edit_config(base, hidden_size=2048, num_attention_heads=96, intermediate_size=32)
    del source
    tensors = {
        name: from_array(np.zeros(_stretch(name, tensor.shape), np.float32))
        for name, tensor in random_tensors().items()
    }
    write_safetensors(base / WEIGHTS, tensors)
    source = open_source(base, adapters=[Adapter(wide)])
    tracemalloc.start()
    rows = source.checkpoint.read_rows(f"{Q_PROJ}.weight", 1000, 1016)
    few = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    source.checkpoint.read_rows(f"{Q_PROJ}.weight", 0, 3072)
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(rows, define_change(own, Q_PROJ, 0.5)[1000:1016])
    assert few < 1_000_000
    assert whole < 24 * 1024**2 + 12_000_000


def _stretch(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shapes of the small checkpoint with 96 heads and 2,048 hidden units."""
    if "q_proj" in name:
        return (3072, 2048)[: len(shape)]
    if "o_proj" in name:
        return (2048, 3072)
    if "gate_up" in name:
        return (64, 2048)
    if "down" in name:
        return (2048, 32)
    return tuple(2048 if size == 64 else size for size in shape)


# --- refusals


def refuse(
    tmp_path: Path,
    kind: type[ExportError],
    *words: str,
    own: dict[str, Floats] | None = None,
    weight: float = 1.0,
    **settings: Any,
) -> None:
    adapter = Adapter(write_adapter(tmp_path / "lora", own, **settings), weight)
    with pytest.raises(kind) as caught:
        open_merged(tmp_path, adapter)
    assert caught.type is kind
    assert_sentence(str(caught.value), "lora", *words)


def test_an_adapter_of_the_model_without_its_head(tmp_path: Path) -> None:
    """PEFT saves it with `task_type` FEATURE_EXTRACTION and names without `model.`."""
    own = {name.removeprefix("model."): one for name, one in draw_change(MODULES).items()}
    words = ("layers.0.self_attn.q_proj.weight in this model", "without its head")
    refuse(tmp_path, CheckpointError, *words, own=own, task_type="FEATURE_EXTRACTION")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "LOHA"}, ("peft_type='LOHA'", "only LORA is merged")),
        ({"peft_type": None}, ("peft_type=None",)),
        ({"use_dora": True}, ("use_dora=True (DoRA)", "merge_and_unload")),
        ({"alora_invocation_tokens": [1]}, ("alora_invocation_tokens=[1] (aLoRA)",)),
        ({"use_qalora": True}, ("use_qalora=True (QA-LoRA)",)),
        ({"layer_replication": [[0, 1]]}, ("layer_replication=[[0, 1]]", "not plain LoRA")),
        ({"trainable_token_indices": [5]}, ("trainable_token_indices=[5]",)),
        ({"something_new": 1}, ("something_new=1", "not plain LoRA")),
        ({"init_lora_weights": "pissa_niter_4"}, ("'pissa_niter_4'", "initial_model_for_weight")),
        ({"init_lora_weights": ["x"]}, ("init_lora_weights=['x']",)),
        ({"r": 0}, ("r=0", "a number above 0")),
        ({"lora_alpha": "8"}, ("lora_alpha='8'", "a number above 0")),
        ({"lora_alpha": 10**400}, ("a number above 0",)),
        ({"use_rslora": 1}, ("use_rslora=1", "true or false")),
        ({"alpha_pattern": [1]}, ("alpha_pattern=[1]", "an object")),
        ({"rank_pattern": {"(": 2}}, ("'(' in rank_pattern", "not a regular expression (")),
    ],
    ids=str,
)
def test_settings(tmp_path: Path, settings: dict[str, Any], words: tuple[str, ...]) -> None:
    refuse(tmp_path, UnsupportedModelError, "adapter_config.json", *words, **settings)


def test_dora_that_only_its_tensors_tell(tmp_path: Path) -> None:
    own = draw_change({Q_PROJ: MODULES[Q_PROJ]})
    own[f"{Q_PROJ}.lora_magnitude_vector"] = draw("m", (64,))
    refuse(tmp_path, UnsupportedModelError, "is a magnitude of DoRA", own=own)


def test_ranks_that_differ(tmp_path: Path) -> None:
    words = ("[2, 64]", "[64, 2]", f"gives {Q_PROJ} the rank 4", "belong together")
    refuse(tmp_path, CheckpointError, *words, rank_pattern={"q_proj": 4})


def test_half_a_change(tmp_path: Path) -> None:
    own = draw_change({Q_PROJ: MODULES[Q_PROJ]})
    del own[f"{Q_PROJ}.lora_B.weight"]
    refuse(tmp_path, CheckpointError, f"{Q_PROJ} has a lora_A or a lora_B and not both", own=own)


def test_a_module_that_the_model_has_not(tmp_path: Path) -> None:
    own = draw_change({"model.layers.7.self_attn.q_proj": (64, 64)})
    words = ("model.layers.7.self_attn.q_proj.weight, which this model does not have", "'org/base'")
    refuse(tmp_path, CheckpointError, *words, own=own)


def test_a_classifier_head(tmp_path: Path) -> None:
    own = draw_change({Q_PROJ: MODULES[Q_PROJ]}) | {"score.weight": draw("s", (2, 64))}
    refuse(tmp_path, CheckpointError, "score.weight, which this model does not have", own=own)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (draw_change({Q_PROJ: (64, 32)}), (f"{Q_PROJ} is for [64, 32]", "is [64, 64]")),
        (
            draw_change({}) | {"lm_head.weight": draw("h", (330, 64))},
            ("lm_head.weight is for [330, 64] but lm_head.weight is [320, 64]",),
        ),
    ],
)
def test_shapes(tmp_path: Path, own: dict[str, Floats], words: tuple[str, ...]) -> None:
    refuse(tmp_path, CheckpointError, *words, "was trained on this checkpoint", own=own)


def test_a_whole_tensor_with_a_weight(tmp_path: Path) -> None:
    own = {"lm_head.weight": draw("h", (320, 64))}
    words = ("replaces lm_head.weight, which has no weight", "without the weight 0.5")
    refuse(tmp_path, OptionsError, *words, own=own, weight=0.5)


def test_two_whole_tensors(tmp_path: Path) -> None:
    own = {"lm_head.weight": draw("h", (320, 64))}
    adapters = [Adapter(write_adapter(tmp_path / name, own)) for name in ("a", "b")]
    with pytest.raises(OptionsError) as caught:
        open_merged(tmp_path, *adapters)
    assert_sentence(str(caught.value), "two adapters replace lm_head.weight, the second is b")


@pytest.mark.parametrize("name", ["model.embed_tokens", "lm_head"])
def test_one_of_two_tied_tensors(tmp_path: Path, name: str) -> None:
    base = write_small(tmp_path / "base")
    edit_config(base, tie_word_embeddings=True)
    replace_tensors(base, drop=["lm_head.weight"])
    words = (f"changes {name}.weight", "ties its head to its embedding")
    own = {f"{name}.weight": draw("h", (320, 64))}
    refuse(tmp_path, UnsupportedModelError, *words, own=own)


def test_a_quantized_checkpoint(tmp_path: Path) -> None:
    write_prequantized(tmp_path / "base", Prequantized(TinyShape(), Recipe(GPTQ)))
    own = draw_change({Q_PROJ: (128, 128)})
    words = ("quantized already (gptq)", "give the checkpoint that is not quantized", "--adapter")
    refuse(tmp_path, UnsupportedModelError, *words, own=own)


@pytest.mark.usefixtures("no_tracing")
@pytest.mark.parametrize("name", [CONFIG, "adapter_model.safetensors"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    write_small(tmp_path / "base")
    (write_adapter(tmp_path / "lora") / name).unlink()
    options = ExportOptions(
        tmp_path / "base", tmp_path / "out", adapters=(Adapter(tmp_path / "lora"),)
    )
    words = ("there is no adapter_config.json with adapter_model.safetensors", "save_pretrained")
    assert_export_refused(options, CheckpointError, *words)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_merged(tmp_path, Adapter(tmp_path / "nothing"))
    assert_sentence(str(caught.value), "nothing: it is not a folder", "save_pretrained")


def test_choices(tmp_path: Path) -> None:
    assert parse_adapter("a/b") == Adapter(Path("a/b"))
    assert parse_adapter("a=b=-0.25") == Adapter(Path("a=b"), -0.25)
    (tmp_path / "x=2").mkdir()
    assert parse_adapter(str(tmp_path / "x=2")) == Adapter(tmp_path / "x=2")
    for text, words in (("a=b", "write DIR or DIR=WEIGHT"), ("a=0", "is 0.0"), ("a=nan", "is nan")):
        with pytest.raises(OptionsError) as caught:
            parse_adapter(text)
        assert_sentence(str(caught.value), words)
    twice = (Adapter(tmp_path), Adapter(tmp_path / "x=2" / ".."))
    with pytest.raises(OptionsError, match="the same folder"):
        ExportOptions(tmp_path / "in", tmp_path / "out", adapters=twice)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("part", ["A", "B"])
@pytest.mark.filterwarnings("error")
def test_no_number(tmp_path: Path, value: float, part: str) -> None:
    """The adapter is named, not the checkpoint. Products that are too large are none either."""
    own = draw_change({Q_PROJ: MODULES[Q_PROJ]})
    own[f"{Q_PROJ}.lora_{part}.weight"][1, 1] = value
    folder = write_adapter(tmp_path / "lora", own, lora_alpha=100_000)
    source = open_merged(tmp_path, Adapter(folder))
    with pytest.raises(CheckpointError) as caught:
        source.read_parameter("layers.0.qkv_proj.weight")
    words = ("adapter_model.safetensors", f"the change of {Q_PROJ} has NaN or Inf", "its weight")
    assert_sentence(str(caught.value), *words)
