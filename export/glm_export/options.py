"""What a user asks of an export, validated once."""

import os
from dataclasses import dataclass
from pathlib import Path

from glm_export.errors import OptionsError
from glm_quantize import METHODS, Scheme, SchemeError

QUANTS = ("none", "int8", "int4")
DTYPES = ("fp32", "fp16")
TARGETS = ("cpu", "cuda")
VERIFY_LEVELS = ("auto", "full", "tensors", "none")
# int4 keeps small blocks, since each scale covers a coarser grid; int8 has precision to spare.
_DEFAULT_BLOCK_SIZE = {"int4": 32, "int8": 128}
# MatMulNBits on a CPU: 4 quantizes activations to int8, three times the speed of 0 (float32).
# CUDA kernels take no notice of it.
_ACCURACY_LEVEL = {"cpu": 4, "cuda": 0}


@dataclass(frozen=True)
class ExportOptions:
    """One export.

    Attributes:
        checkpoint: Hugging Face folder.
        output: folder to make.
        quant: "none", "int8" or "int4".
        method: how codes are chosen, a name in `glm_quantize.METHODS`.
        block_size: weights that share a scale: 32, 64 or 128; None: 32 for int4, 128 for int8.
        is_symmetric: no zero points.
        dtype: "fp32" or "fp16"; None: fp32 for cpu, fp16 for cuda.
        target: "cpu" or "cuda".
        verify: "full" runs the graph against PyTorch, "tensors" reads every tensor back, "auto"
            is full where memory allows and tensors elsewhere.
        is_forced: replace an existing folder.
        accuracy_level: of MatMulNBits, 0 to 4; None: what suits the target.
        threads: written to genai_config.json for onnxruntime-genai; None: left to the machine.

    Raises:
        OptionsError: a value that is none of these.
    """

    checkpoint: Path
    output: Path
    quant: str = "int4"
    method: str = "rtn"
    block_size: int | None = None
    is_symmetric: bool = False
    dtype: str | None = None
    target: str = "cpu"
    verify: str = "auto"
    is_forced: bool = False
    accuracy_level: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse by name what is no choice."""
        _require("quant", self.quant, QUANTS)
        _require("method", self.method, tuple(METHODS))
        _require("target", self.target, TARGETS)
        _require("verify", self.verify, VERIFY_LEVELS)
        if self.dtype is not None:
            _require("dtype", self.dtype, DTYPES)
        if self.accuracy_level is not None:
            _require("accuracy level", self.accuracy_level, (0, 1, 2, 3, 4))
        if self.threads is not None and self.threads < 1:
            raise OptionsError(f"threads is {self.threads}; choose 1 or more.")
        if self.block_size is not None and self.quant == "none":
            raise OptionsError(
                f"block size {self.block_size} asked for with quant 'none'; "
                "choose int4 or int8, or leave the block size out."
            )
        self._check_places()
        try:
            _ = self.scheme
        except SchemeError as error:
            raise OptionsError(str(error)) from error

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
    def scheme(self) -> Scheme | None:
        """The scheme of every matrix, or None."""
        if self.quant == "none":
            return None
        bits = int(self.quant.removeprefix("int"))
        default = _DEFAULT_BLOCK_SIZE[self.quant]
        block_size = default if self.block_size is None else self.block_size
        return Scheme(bits, block_size, self.is_symmetric)

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
