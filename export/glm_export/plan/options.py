"""What a user asks of an export, validated once."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from glm_export.checkpoint.rope_options import RopeOptions
from glm_export.errors import OptionsError
from glm_export.plan.schemes import Override, SchemeDefaults, parse_override
from glm_quantize import METHODS, Scheme, SchemeError

QUANTS = ("none", "int8", "int4", "int2")
DTYPES = ("fp32", "fp16")
TARGETS = ("cpu", "cuda")
KV_CACHES = ("float", "int8")
VERIFY_LEVELS = ("auto", "full", "tensors", "none")
# int4 keeps small blocks, since each scale covers a coarser grid; int8 has precision to spare.
_DEFAULT_BLOCK_SIZE = {2: 32, 4: 32, 8: 128}
# int8 loses so little that calibrating is not worth the wait; with fewer bits it halves the loss.
_DEFAULT_METHOD = {2: "gptq-refine", 4: "gptq-refine", 8: "rtn-search"}
_WITHOUT_STATISTICS = ("rtn", "hqq")
_MOST_BITS = 32.0
# MatMulNBits on a CPU: 4 quantizes activations to int8, three times the speed of 0 (float32).
# CUDA kernels take no notice of it.
_ACCURACY_LEVEL = {"cpu": 4, "cuda": 0}


@dataclass(frozen=True)
class ExportOptions:
    """One export.

    Attributes:
        checkpoint: Hugging Face folder.
        output: folder to make.
        quant: "none", "int8", "int4" or "int2" (experimental); None: int4, and of a checkpoint
            that is quantized already, as it is.
        method: how codes are chosen, a name in `glm_quantize.METHODS`; None: what suits the rest.
        block_size: weights that share a scale (`SUPPORTED_BLOCK_SIZES`); None: chosen.
        is_symmetric: no zero points.
        overrides: `PATTERN=SPEC` each: other schemes for some matrices, see `schemes.py`.
        bits_per_weight: mixed precision within this average, scales included; None with int4 and
            neither method nor block size nor symmetry: the average of int4 block 32.
        calibration: text or folder of texts, see `calibration/corpus.py`; None: the shipped one.
        calibration_tokens: at most so many are used.
        device: where calibration computes, "cpu" or a CUDA device.
        dtype: "fp32" or "fp16"; None: fp32 for cpu, fp16 for cuda.
        target: "cpu" or "cuda".
        kv_cache: "float" keeps keys and values in `dtype`, "int8" (for the CPU) in a byte each.
        rope: rotary settings other than config.json's.
        verify: "full" runs the graph against PyTorch, "tensors" reads every tensor back, "auto"
            is full where memory allows and tensors elsewhere.
        is_forced: replace an existing folder.
        is_resumed: go on where a run with the same options and source was killed.
        accuracy_level: of MatMulNBits, 0 to 4; None: what suits the target.
        has_conformance: run the finished folder and write what it answers beside it, for hosts in
            other languages to be held to; needs memory for the model.
        threads: written to genai_config.json for onnxruntime-genai; None: left to the machine.

    Raises:
        OptionsError: a value that is none of these.
    """

    checkpoint: Path
    output: Path
    quant: str | None = None
    method: str | None = None
    block_size: int | None = None
    is_symmetric: bool = False
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

    def __post_init__(self) -> None:
        """Refuse by name what is no choice."""
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
                f"conformance vectors asked for with target {self.target}; they are made on the "
                "CPU: leave one of them out."
            )
        if self.threads is not None and self.threads < 1:
            raise OptionsError(f"threads is {self.threads}; choose 1 or more.")
        self._check_contradictions()
        self._check_places()
        try:
            _ = self.scheme, self.parsed_overrides
        except SchemeError as error:
            raise OptionsError(str(error)) from error

    def _check_contradictions(self) -> None:
        """Options that each make sense, but not together."""
        if self.kv_cache == "int8" and (self.target != "cpu" or self.chosen_dtype != "fp32"):
            raise OptionsError(
                f"kv cache int8 asked for with {self.chosen_dtype} for {self.target}; it was built "
                "for fp32 on the CPU only: leave dtype and target, or the kv cache, out."
            )
        if self.quant == "none":
            refused = ["block_size", "method", "bits_per_weight"]
            for name in refused if self.kv_cache == "int8" else [*refused, "calibration"]:
                value = getattr(self, name)
                if value is not None:
                    raise OptionsError(
                        f"{name.replace('_', ' ')} {value} asked for with quant 'none'; "
                        f"choose int4 or int8, or leave the {name.replace('_', ' ')} out."
                    )
        bits = self.bits_per_weight
        if bits is not None and not 0 < bits <= _MOST_BITS:
            raise OptionsError(f"bits per weight is {bits}; choose a number such as 4.5.")
        if bits is not None and (self.quant or "int4") != "int4":
            raise OptionsError(
                f"bits per weight {bits} asked for with quant {self.quant!r}; leave the quant out: "
                "int4 and int8 are mixed to meet the budget."
            )
        is_unused = not self.weighs_texts and self.kv_cache == "float"
        if self.calibration is not None and is_unused:
            raise OptionsError(
                f"method {self.method} takes no calibration; leave {self.calibration} out, or "
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
                f"the output {self.output} holds the checkpoint, which is to stay; "
                "choose another output."
            )

    @property
    def chosen_quant(self) -> str:
        """The kind of code."""
        return self.quant or "int4"

    @property
    def chosen_method(self) -> str:
        """The method's name, also of matrices that only an override quantizes."""
        if self.chosen_quant == "none":
            return "rtn-search"
        return self.method or _DEFAULT_METHOD[int(self.chosen_quant.removeprefix("int"))]

    @property
    def weighs_texts(self) -> bool:
        """The method is to see the texts that were given; otherwise they serve the KV cache."""
        return self.calibration is not None and self.method not in _WITHOUT_STATISTICS

    @property
    def is_mixed(self) -> bool:
        """Schemes are chosen by sensitivity, within a budget of bits."""
        is_left_open = self.method is None and self.block_size is None and not self.is_symmetric
        return self.bits_per_weight is not None or (self.chosen_quant == "int4" and is_left_open)

    @property
    def scheme(self) -> Scheme | None:
        """The scheme of every matrix, unless the recipe is mixed; None for float."""
        if self.chosen_quant == "none":
            return None
        bits = int(self.chosen_quant.removeprefix("int"))
        block_size = _DEFAULT_BLOCK_SIZE[bits] if self.block_size is None else self.block_size
        return Scheme(bits, block_size, self.is_symmetric)

    @property
    def parsed_overrides(self) -> tuple[Override, ...]:
        """What `overrides` say.

        Raises:
            OptionsError: one is not understood.
        """
        sizes = dict(_DEFAULT_BLOCK_SIZE)
        if self.block_size is not None:
            sizes = dict.fromkeys(sizes, self.block_size)
        defaults = SchemeDefaults(sizes, self.is_symmetric)
        return tuple(parse_override(text, defaults) for text in self.overrides)

    @property
    def chosen_dtype(self) -> str:
        """Type of activations, KV cache, scales and unquantized weights."""
        return self.dtype or ("fp16" if self.target == "cuda" else "fp32")

    @property
    def chosen_accuracy_level(self) -> int:
        """The accuracy level that the graph will carry."""
        if self.accuracy_level is None:
            return _ACCURACY_LEVEL[self.target]
        return self.accuracy_level


def _require(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices)
        raise OptionsError(f"{name} is {value!r}; choose one of {listed}.")
