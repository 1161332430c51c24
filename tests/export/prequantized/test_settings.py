"""quantization_config: what is not supported is refused by name; never a traceback."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_export.checkpoint.prequantized import FORMATS, find_format
from glm_export.errors import UnsupportedModelError
from support.prequantized_tensors import AWQ, COMPRESSED, GPTQ, Recipe, describe
from support.property_tests import examples
from support.refusals import assert_sentence

GPTQ_V1 = Recipe(GPTQ)


def refuse_config(quantization: object, *expected: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        find_format({"quantization_config": quantization})
    assert_sentence(str(caught.value), *expected)


def test_no_quantization_is_no_format() -> None:
    assert find_format({}) is None
    assert find_format({"quantization_config": None}) is None


@pytest.mark.parametrize("method", [AWQ, COMPRESSED, GPTQ])
def test_known_methods(method: str) -> None:
    stored_format = find_format({"quantization_config": describe(Recipe(method))})
    assert stored_format is not None and stored_format.method == method
    assert list(FORMATS) == ["auto-round", AWQ, "bitsandbytes", COMPRESSED, "fp8", GPTQ]


@pytest.mark.parametrize("method", ["hqq", "quark", "GPTQ", None, 4, ["gptq"]])
def test_an_unknown_method(method: object) -> None:
    names = "auto-round, awq, bitsandbytes, compressed-tensors, fp8, gptq"
    found = f"quant_method={method!r}; supported are {names}"
    refuse_config({"quant_method": method, "bits": 4}, found, "the one that is not quantized")


@pytest.mark.parametrize("value", ["gptq", 4, [], True])
def test_settings_that_are_no_object(value: object) -> None:
    refuse_config(value, f"quantization_config={value!r}", "an object is needed")


@pytest.mark.parametrize(
    ("recipe", "values", "found", "expected"),
    [
        (GPTQ_V1, {"bits": 3}, "bits=3", "4 or 8"),
        (GPTQ_V1, {"bits": 2}, "bits=2", "4 or 8"),
        (GPTQ_V1, {"bits": None}, "bits=None", "a whole number"),
        (GPTQ_V1, {"group_size": 0}, "group_size=0", "-1 or a whole number"),
        (GPTQ_V1, {"group_size": None}, "group_size=None", "-1 or a whole number"),
        (GPTQ_V1, {"group_size": True}, "group_size=True", "-1 or a whole number"),
        (GPTQ_V1, {"checkpoint_format": "marlin"}, "checkpoint_format='marlin'", "'gptq_v2'"),
        (GPTQ_V1, {"checkpoint_format": None, "format": "gptq_p"}, "format='gptq_p'", "'gptq'"),
        (GPTQ_V1, {"checkpoint_format": 2}, "checkpoint_format=2", "'gptq'"),
        (GPTQ_V1, {"pack_dtype": "int16"}, "pack_dtype='int16'", "'int32'"),
        (GPTQ_V1, {"is_marlin_format": True}, "is_marlin_format=True", "False"),
        (GPTQ_V1, {"adapter": {"rank": 8}}, "adapter={'rank': 8}", "is not supported; use another"),
        (GPTQ_V1, {"rotation": "hadamard"}, "rotation='hadamard'", "is not supported; use another"),
        (GPTQ_V1, {"activation": "w4afp8"}, "activation='w4afp8'", "is not supported; use another"),
        (GPTQ_V1, {"desc_act": "yes"}, "desc_act='yes'", "true or false"),
        (GPTQ_V1, {"sym": 1}, "sym=1", "true or false"),
        (Recipe(AWQ), {"bits": 8}, "bits=8", "4"),
        (Recipe(AWQ), {"group_size": -2}, "group_size=-2", "-1 or a whole number"),
        (Recipe(AWQ), {"version": "gemv"}, "version='gemv'", "'gemm'"),
        (Recipe(AWQ), {"version": "GEMV_FAST"}, "version='gemv_fast'", "'gemm'"),
        (Recipe(AWQ), {"version": "marlin"}, "version='marlin'", "'gemm'"),
        (Recipe(AWQ), {"version": "exllama"}, "version='exllama'", "'gemm'"),
        (Recipe(AWQ), {"format": "llm-awq"}, "format='llm-awq'", "'gemm'"),
        (Recipe(AWQ), {"checkpoint_format": "gemv"}, "checkpoint_format='gemv'", "'gemm'"),
        (Recipe(COMPRESSED), {"format": "int-quantized"}, "symmetric=False", "True"),
        (Recipe(COMPRESSED), {"format": "float-quantized"}, "symmetric=False", "True"),
        (Recipe(COMPRESSED), {"format": "nvfp4-pack-quantized"}, "'nvfp4-pack-q", "'pack-quan"),
        (Recipe(COMPRESSED), {"format": "mixed-precision"}, "'mixed-precision'", "'pack-quan"),
        (Recipe(COMPRESSED), {"format": "marlin-24"}, "'marlin-24'", "'pack-quan"),
        (
            Recipe(COMPRESSED),
            {"quantization_status": "frozen"},
            "quantization_status='frozen'",
            "'compressed'",
        ),
        (
            Recipe(COMPRESSED),
            {"kv_cache_scheme": {"num_bits": 8}},
            "kv_cache_scheme={",
            "is not supported",
        ),
        (Recipe(COMPRESSED), {"transform_config": {"R1": {}}}, "transform_config={'R1'", "{}"),
        (
            Recipe(COMPRESSED),
            {"sparsity_config": {"format": "sparse-24-bitmask"}},
            "format='sparse-24-bitmask'",
            "'dense'",
        ),
        (Recipe(COMPRESSED), {"config_groups": {}}, "no config_groups", "download it again"),
        (Recipe(COMPRESSED), {"config_groups": None}, "no config_groups", "download it again"),
        (Recipe(COMPRESSED), {"config_groups": {"W4A16": ["Linear"]}}, "W4A16=['Li", "an object"),
    ],
)
def test_settings_that_no_linear_may_have(
    recipe: Recipe, values: dict[str, Any], found: str, expected: str
) -> None:
    refuse_config(describe(recipe) | values, found, expected)


@pytest.mark.parametrize(
    ("place", "values", "found", "expected"),
    [
        ("weights", {"num_bits": 2}, "num_bits=2", "4 or 8"),
        ("weights", {"type": "float"}, "type='float'", "'int'"),
        ("weights", {"strategy": "tensor"}, "strategy='tensor'", "'group' or 'channel'"),
        ("weights", {"strategy": "block"}, "strategy='block'", "'group' or 'channel'"),
        ("weights", {"strategy": None, "group_size": None}, "group_size=None", "-1 or a whole"),
        ("weights", {"actorder": "sideways"}, "actorder='sideways'", "'weight'"),
        ("weights", {"actorder": True}, "actorder=True", "'group'"),
        ("weights", {"dynamic": True}, "dynamic=True", "False"),
        ("weights", {"symmetric": "no"}, "symmetric='no'", "true or false"),
        ("group", {"weights": None}, "num_bits=None", "a whole number"),
        ("group", {"weights": 4}, "weights=4", "an object"),
        (
            "group",
            {"input_activations": {"num_bits": 8}},
            "input_activations={",
            "is not supported; use another",
        ),
        (
            "group",
            {"output_activations": {"num_bits": 8}},
            "output_activations={",
            "is not supported",
        ),
        ("group", {"format": "nvfp4-pack-quantized"}, "format='nvfp4-pack", "'pack-quantized'"),
        ("group", {"targets": "Linear"}, "targets='Linear'", "a list of names"),
        ("group", {"targets": [1]}, "targets=[1]", "a list of names"),
    ],
)
def test_a_group_of_compressed_tensors(
    place: str, values: dict[str, Any], found: str, expected: str
) -> None:
    config = describe(Recipe(COMPRESSED))
    group = config["config_groups"]["group_0"]
    (group if place == "group" else group["weights"]).update(values)
    refuse_config(config, found, expected)


# --- anything

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
KEYS = ("quant_method", "bits", "group_size", "checkpoint_format", "format", "version", "dynamic")
MORE_KEYS = (
    "config_groups",
    "sparsity_config",
    "desc_act",
    "sym",
    "pack_dtype",
    "transform_config",
    "weight_block_size",
    "packing_format",
    "extra_config",
    "data_type",
    "fmt",
)


@examples(300)
@given(
    method=st.sampled_from([GPTQ, AWQ, COMPRESSED, "fp8", "auto-round"]),
    values=st.dictionaries(st.sampled_from(KEYS + MORE_KEYS), VALUES, max_size=3),
    group=st.dictionaries(st.sampled_from(["targets", "weights", "format"]), VALUES, max_size=2),
    weights=st.dictionaries(st.sampled_from(["num_bits", "actorder", "type", "dynamic"]), VALUES),
)
def test_random_settings_are_never_a_traceback(
    method: str, values: dict[str, Any], group: dict[str, Any], weights: dict[str, Any]
) -> None:
    config = {"quant_method": method, "bits": 4, "group_size": 32}
    if method in {GPTQ, AWQ, COMPRESSED}:
        config = describe(Recipe(method))
    if method == COMPRESSED:
        config["config_groups"]["group_0"]["weights"] |= weights
        config["config_groups"]["group_0"] |= group
    config = json.loads(json.dumps(config | values))
    try:
        stored_format = find_format({"quantization_config": config})
    except UnsupportedModelError:
        return
    assert stored_format is not None and stored_format.method in FORMATS
