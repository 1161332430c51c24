"""Options are checked once, when they are made; what is left out depends on the rest."""

from pathlib import Path
from typing import Any

import pytest

from glm_export import ExportOptions
from glm_export.errors import OptionsError
from glm_export.evaluation.evaluate import EvaluationOptions
from glm_quantize import METHODS, QuantizationError, Scheme, SchemeError, find_method
from support.refusals import assert_sentence


def choose(**values: Any) -> ExportOptions:
    return ExportOptions(Path("checkpoint"), Path("out"), **values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"quant": "int3"}, ("quant is 'int3'", "none, int8, int4")),
        ({"quant": "INT4"}, ("quant is 'INT4'", "none, int8, int4")),
        ({"method": "gptq2"}, ("method is 'gptq2'", "rtn")),
        ({"dtype": "bf16"}, ("dtype is 'bf16'", "fp32, fp16")),
        ({"target": "tpu"}, ("target is 'tpu'", "cpu, cuda")),
        ({"verify": "some"}, ("verify is 'some'", "auto, full, tensors, none")),
        ({"accuracy_level": 5}, ("accuracy level is 5", "0, 1, 2, 3, 4")),
        ({"accuracy_level": -1}, ("accuracy level is -1", "0, 1, 2, 3, 4")),
        ({"device": "gpu"}, ("device is 'gpu' where cpu, cuda,", "cuda for an NVIDIA GPU")),
        ({"device": "meta"}, ("device is 'meta' where cpu, cuda,", "choose one of them")),
        ({"device": "cuda:x"}, ("device is 'cuda:x' where cpu, cuda,",)),
        ({"threads": 0}, ("threads is 0", "choose 1 to 1024")),
        ({"threads": 1025}, ("threads is 1025", "choose 1 to 1024")),
        ({"block_size": 0}, ("block size is 0", "32, 64, 128")),
        ({"block_size": 16}, ("block size is 16", "32, 64, 128")),
        ({"block_size": 33}, ("block size is 33", "32, 64, 128")),
        ({"block_size": 512}, ("block size is 512", "32, 64, 128, 256")),
        ({"block_size": -32}, ("block size is -32", "32, 64, 128")),
        ({"block_size": 32, "quant": "none"}, ("block size 32", "quant 'none'", "choose int4")),
        ({"method": "rtn", "quant": "none"}, ("method rtn", "quant 'none'", "leave the method")),
        ({"bits_per_weight": 5.0, "quant": "none"}, ("bits per weight 5.0", "quant 'none'")),
        ({"bits_per_weight": 5.0, "quant": "int8"}, ("bits per weight 5.0", "quant 'int8'")),
        ({"bits_per_weight": 0.0}, ("bits per weight is 0.0", "such as 4.5")),
        ({"bits_per_weight": float("nan")}, ("bits per weight is nan", "such as 4.5")),
        ({"kv_cache": "int2"}, ("kv cache is 'int2'", "float, int8")),
        (
            {"kv_cache": "int8", "target": "cuda"},
            ("kv cache int8", "only fp32 on the CPU supports it"),
        ),
        (
            {"kv_cache": "int8", "dtype": "fp16"},
            ("kv cache int8", "only fp32 on the CPU supports it"),
        ),
        ({"calibration_tokens": 0}, ("calibration tokens is 0", "such as 8192")),
        ({"overrides": ("lm_head",)}, ("--set 'lm_head'", "PATTERN=SPEC")),
        ({"overrides": ("lm_head=int5",)}, ("--set 'lm_head=int5'", "bits is 5")),
        (
            {"method": "rtn", "calibration": Path("a.txt")},
            ("method rtn", "uses no calibration text"),
        ),
    ],
)
def test_a_value_that_is_no_choice(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(OptionsError) as caught:
        choose(**values)
    assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize("output", ["model", "model/", ".", "..", "model/../model"])
def test_an_output_that_holds_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """With --force, replacing the output would delete what it is made from."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionsError) as caught:
        ExportOptions(Path("model"), Path(output), is_forced=True)
    assert_sentence(str(caught.value), "holds the checkpoint", "choose another output")


def test_an_output_that_holds_the_checkpoint_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "model").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OptionsError, match="holds the checkpoint"):
        ExportOptions(tmp_path / "real" / "model", tmp_path / "link")
    ExportOptions(tmp_path / "real" / "model", tmp_path / "link" / "out")


def test_defaults() -> None:
    assert choose().scheme == Scheme(4, 32, is_symmetric=False)
    assert choose(quant="int8").scheme == Scheme(8, 128, is_symmetric=False)
    assert choose(quant="int8", block_size=64, is_symmetric=True).scheme == Scheme(8, 64, True)
    assert choose(quant="none").scheme is None
    assert choose().is_mixed and choose(bits_per_weight=4.5, method="rtn").is_mixed
    assert not choose(method="rtn").is_mixed
    assert not choose(block_size=32).is_mixed
    assert not choose(is_symmetric=True).is_mixed
    assert not choose(quant="int8").is_mixed
    assert choose().chosen_method == choose(quant="int2").chosen_method == "gptq-refine"
    assert choose(quant="int8").chosen_method == "rtn-search"
    assert choose().chosen_dtype == "fp32"
    assert choose(target="cuda").chosen_dtype == "fp16"
    assert choose(target="cuda", dtype="fp32").chosen_dtype == "fp32"
    assert choose().chosen_accuracy_level == 4
    assert choose(target="cuda").chosen_accuracy_level == 0
    assert choose(accuracy_level=0).chosen_accuracy_level == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"window": 1}, ("window is 1", "choose 2 or more")),
        ({"window": -5}, ("window is -5", "choose 2 or more")),
        ({"max_tokens": 1}, ("max tokens is 1", "choose 2 or more")),
    ],
)
def test_an_evaluation_of_nothing(values: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(OptionsError) as caught:
        EvaluationOptions(Path("checkpoint"), (Path("folder"),), **values)
    assert_sentence(str(caught.value), *words)


@pytest.mark.parametrize("bits", [0, 1, 3, 5, 16])
def test_a_scheme_of_other_bits(bits: int) -> None:
    with pytest.raises(SchemeError) as caught:
        Scheme(bits, 32, is_symmetric=False)
    assert_sentence(str(caught.value), f"bits is {bits}", "choose one of 2, 4, 8")


def test_a_row_that_does_not_divide() -> None:
    with pytest.raises(SchemeError) as caught:
        Scheme(4, 64, is_symmetric=False).count_blocks(96)
    assert_sentence(str(caught.value), "a row of 96 weights", "blocks of 64", "divides 96")


def test_a_method_that_nobody_wrote() -> None:
    with pytest.raises(QuantizationError) as caught:
        find_method("magic")
    assert_sentence(str(caught.value), "no method 'magic'", *METHODS)
