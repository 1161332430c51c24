"""The options of an export, checked when they are made."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from glm_export.checkpoint.adapters import Adapter, check_adapters
from glm_export.checkpoint.rope_options import RopeOptions
from glm_export.errors import OptionsError
from glm_export.plan.schemes import Override, SchemeDefaults, parse_override
from glm_quantize import METHODS, SUPPORTED_BITS, Scheme, SchemeError
from glm_runtime.graph.machine import MAX_THREADS

QUANTS = ("none", "int8", "int4", "int2")
DTYPES = ("fp32", "fp16")
TARGETS = ("cpu", "cuda")
KV_CACHES = ("float", "int8")
VERIFY_LEVELS = ("auto", "full", "tensors", "none")
# int4 and int2 need small blocks, since their grids are coarse; int8 does not.
_DEFAULT_BLOCK_SIZE = {2: 32, 4: 32, 8: 128}
# With int4 and int2, calibration halves the loss; int8 loses too little for it to be worthwhile.
_DEFAULT_METHOD = {2: "gptq-refine", 4: "gptq-refine", 8: "rtn-search"}
_WITHOUT_STATISTICS = ("rtn", "hqq")
_MOST_BITS = 32.0
# Devices of PyTorch that compute what calibration needs.
_DEVICE = re.compile(r"cpu|cuda(:\d+)?|mps|xpu(:\d+)?")
# accuracy_level of MatMulNBits: on a CPU, 4 quantizes activations to int8 and is three times as
# fast as 0, which computes in float32. CUDA kernels ignore it.
_ACCURACY_LEVEL = {"cpu": 4, "cuda": 0}


@dataclass(frozen=True)
class ExportOptions:
    """The options of an export.

    Attributes:
        checkpoint: Hugging Face folder with the checkpoint.
        output: folder to create.
        quant: "none", "int8", "int4" or "int2" (experimental). None is int4; a checkpoint that is
            already quantized then keeps its own codes.
        method: quantization method, a name in `glm_quantize.METHODS`; None is the default for
            `quant`.
        block_size: number of weights that share a scale, in every matrix, one of
            `SUPPORTED_BLOCK_SIZES`; None is the default.
        is_symmetric: True to quantize without zero points, False with them; None is with them,
            except for int2 by rtn.
        overrides: other schemes for some matrices, each as `PATTERN=SPEC`, see `schemes.py`.
        bits_per_weight: average bits for mixed precision, scales and zero points included. None
            mixes within the size of int4 with block size 32 if `quant` is int4 and method, block
            size and symmetry are defaults; otherwise it does not mix.
        calibration: calibration file or folder, see `calibration/corpus.py`; None is the text in
            the package.
        calibration_tokens: largest number of calibration tokens.
        device: PyTorch device that runs the calibration, "cpu" or a CUDA device.
        dtype: "fp32" or "fp16"; None is fp32 for cpu and fp16 for cuda.
        target: "cpu" or "cuda".
        kv_cache: type of the KV cache: "float" is `dtype`; "int8" is for the CPU only.
        rope: rotary settings that replace those of config.json.
        verify: "full" compares the graph's logits with PyTorch's, "tensors" reads every tensor
            back, "auto" is full if memory allows it and tensors otherwise, "none" checks nothing.
        is_forced: True to replace an existing output folder.
        is_resumed: True to continue an interrupted export with the same options and checkpoint.
        accuracy_level: attribute of MatMulNBits, 0 to 4; None is 4 for cpu and 0 for cuda.
        has_conformance: True to run the finished folder and write conformance.json, test vectors
            for hosts in other languages. This needs memory for the whole model.
        threads: number of threads in genai_config.json; None lets onnxruntime-genai choose.
        adapters: LoRA adapters to merge into the weights before they are quantized.

    Raises:
        OptionsError: a value is not supported, or two options contradict each other.
    """

    checkpoint: Path
    output: Path
    quant: str | None = None
    method: str | None = None
    block_size: int | None = None
    is_symmetric: bool | None = None
    overrides: tuple[str, ...] = ()
    bits_per_weight: float | None = None
    calibration: Path | None = None
    calibration_tokens: int = 8192
    device: str = "cpu"
    dtype: str | None = None
    target: str = "cpu"
    kv_cache: str = "float"
    rope: RopeOptions = field(default_factory=RopeOptions)
    verify: str = "auto"
    is_forced: bool = False
    is_resumed: bool = True
    accuracy_level: int | None = None
    threads: int | None = None
    has_conformance: bool = False
    adapters: tuple[Adapter, ...] = ()

    def __post_init__(self) -> None:
        """Check the values."""
        if self.quant is not None:
            _require("quant", self.quant, QUANTS)
        if self.method is not None:
            _require("method", self.method, tuple(METHODS))
        _require("target", self.target, TARGETS)
        _require("kv cache", self.kv_cache, KV_CACHES)
        _require("verify", self.verify, VERIFY_LEVELS)
        if self.dtype is not None:
            _require("dtype", self.dtype, DTYPES)
        if self.accuracy_level is not None:
            _require("accuracy level", self.accuracy_level, (0, 1, 2, 3, 4))
        if self.has_conformance and self.target != "cpu":
            raise OptionsError(
                f"conformance vectors are requested with target {self.target}; they are made on "
                "the CPU: leave one of them out."
            )
        if not _DEVICE.fullmatch(self.device):
            raise OptionsError(
                f"device is {self.device!r} where cpu, cuda, cuda:N, mps, xpu or xpu:N is "
                "expected; choose one of them, for example cuda for an NVIDIA GPU."
            )
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise OptionsError(f"threads is {self.threads}; choose 1 to {MAX_THREADS}.")
        check_adapters(self.adapters)
        self._check_contradictions()
        self._check_places()
        try:
            _ = self.scheme, self.parsed_overrides
        except SchemeError as error:
            raise OptionsError(str(error)) from error

    def _check_contradictions(self) -> None:
        """Refuse options that contradict each other."""
        if self.kv_cache == "int8" and (self.target != "cpu" or self.chosen_dtype != "fp32"):
            raise OptionsError(
                f"kv cache int8 is requested with {self.chosen_dtype} for {self.target}; only fp32 "
                "on the CPU supports it: leave dtype and target, or the kv cache, out."
            )
        if self.quant == "none":
            refused = ["block_size", "method", "bits_per_weight"]
            for name in refused if self.kv_cache == "int8" else [*refused, "calibration"]:
                value = getattr(self, name)
                if value is not None:
                    raise OptionsError(
                        f"{name.replace('_', ' ')} {value} is requested with quant 'none'; "
                        f"choose int4 or int8, or leave the {name.replace('_', ' ')} out."
                    )
        bits = self.bits_per_weight
        if bits is not None and not 0 < bits <= _MOST_BITS:
            raise OptionsError(f"bits per weight is {bits}; choose a number such as 4.5.")
        if bits is not None and (self.quant or "int4") != "int4":
            raise OptionsError(
                f"bits per weight {bits} is requested with quant {self.quant!r}; leave the quant "
                "out, since int4 and int8 are mixed to meet the budget."
            )
        is_unused = not self.uses_calibration_text and self.kv_cache == "float"
        if self.calibration is not None and is_unused:
            raise OptionsError(
                f"method {self.method} uses no calibration text; leave {self.calibration} out, or "
                "choose rtn-search, awq or gptq."
            )
        if self.calibration_tokens < 1:
            raise OptionsError(
                f"calibration tokens is {self.calibration_tokens}; choose a number such as 8192."
            )

    def _check_places(self) -> None:
        checkpoint, output = (
            Path(os.path.realpath(path)) for path in (self.checkpoint, self.output)
        )
        if output == checkpoint or output in checkpoint.parents:
            raise OptionsError(
                f"the output {self.output} holds the checkpoint, which would be replaced; "
                "choose another output."
            )

    @property
    def chosen_quant(self) -> str:
        """Type of the codes: "none", "int8", "int4" or "int2"."""
        return self.quant or "int4"

    @property
    def chosen_method(self) -> str:
        """Name of the method, also for matrices that only an override quantizes."""
        if self.chosen_quant == "none":
            return "rtn-search"
        return self.method or _DEFAULT_METHOD[int(self.chosen_quant.removeprefix("int"))]

    @property
    def uses_calibration_text(self) -> bool:
        """True if the method uses the given calibration text; else only the KV cache uses it."""
        return self.calibration is not None and self.method not in _WITHOUT_STATISTICS

    @property
    def is_mixed(self) -> bool:
        """True if schemes are chosen by sensitivity within a budget of bits."""
        is_left_open = self.method is None and self.block_size is None and not self.is_symmetric
        return self.bits_per_weight is not None or (self.chosen_quant == "int4" and is_left_open)

    @property
    def scheme(self) -> Scheme | None:
        """Scheme of every matrix without mixed precision; None for float."""
        if self.chosen_quant == "none":
            return None
        bits = int(self.chosen_quant.removeprefix("int"))
        block_size = _DEFAULT_BLOCK_SIZE[bits] if self.block_size is None else self.block_size
        return Scheme(bits, block_size, bits in self._symmetric_bits)

    @property
    def _symmetric_bits(self) -> tuple[int, ...]:
        """Numbers of bits that are quantized without zero points.

        Rounding to the nearest of four codes is better with the fixed zero point 2: with a stored
        one the range always contains zero, and one of the codes is often lost. On the sample the
        KL divergence was 0.66 nats symmetric and 0.83 asymmetric (glm-eval).
        """
        if self.is_symmetric is not None:
            return SUPPORTED_BITS if self.is_symmetric else ()
        return (2,) if self.method == "rtn" else ()

    @property
    def parsed_overrides(self) -> tuple[Override, ...]:
        """Parsed `overrides`.

        Raises:
            OptionsError: an override has the wrong form.
        """
        sizes = dict(_DEFAULT_BLOCK_SIZE)
        if self.block_size is not None:
            sizes = dict.fromkeys(sizes, self.block_size)
        defaults = SchemeDefaults(sizes, self._symmetric_bits)
        return tuple(parse_override(text, defaults) for text in self.overrides)

    @property
    def chosen_dtype(self) -> str:
        """Type of activations, KV cache, scales and unquantized weights."""
        return self.dtype or ("fp16" if self.target == "cuda" else "fp32")

    @property
    def chosen_accuracy_level(self) -> int:
        """accuracy_level that the graph will have."""
        if self.accuracy_level is None:
            return _ACCURACY_LEVEL[self.target]
        return self.accuracy_level


def _require(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise OptionsError(f"{name} is {value!r}; choose one of {listed}.")
