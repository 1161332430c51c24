"""A scheme: bits per code, block size, symmetric or not; not how the codes are chosen."""

from dataclasses import dataclass
from typing import NoReturn

from glm_quantize.errors import SchemeError

# What ONNX Runtime's MatMulNBits and GatherBlockQuantized both compute on every device.
SUPPORTED_BITS = (2, 4, 8)
SUPPORTED_BLOCK_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class Scheme:
    """How a weight [N, C] is stored: each row in C / block_size blocks, one scale a block.

    Attributes:
        bits: bits per code: 2 (experimental), 4 or 8.
        block_size: inputs that share one scale, one of `SUPPORTED_BLOCK_SIZES`.
        is_symmetric: True: the zero point is fixed at 2^(bits-1). False: one zero point a block.

    Raises:
        SchemeError: a value outside what the kernels compute.
    """

    bits: int
    block_size: int
    is_symmetric: bool

    def __post_init__(self) -> None:
        """Refuse by name what no kernel computes."""
        if self.bits not in SUPPORTED_BITS:
            _refuse(f"{self.bits} bits per weight", SUPPORTED_BITS)
        if self.block_size not in SUPPORTED_BLOCK_SIZES:
            _refuse(f"block size {self.block_size}", SUPPORTED_BLOCK_SIZES)

    @property
    def name(self) -> str:
        """For example `int4-b32-asym`."""
        return f"int{self.bits}-b{self.block_size}-{'sym' if self.is_symmetric else 'asym'}"

    @property
    def max_code(self) -> int:
        """The largest code: 3, 15 or 255."""
        return (1 << self.bits) - 1

    @property
    def default_zero_point(self) -> int:
        """The zero point of a symmetric block: half the range, the kernels' default without one."""
        return 1 << (self.bits - 1)

    def count_blocks(self, inputs: int) -> int:
        """Blocks in a row of `inputs` weights.

        Raises:
            SchemeError: the row does not divide into whole blocks.
        """
        if inputs % self.block_size:
            raise SchemeError(
                f"a row of {inputs} weights does not divide into blocks of {self.block_size}; "
                f"choose a block size that divides {inputs}."
            )
        return inputs // self.block_size


def _refuse(value: str, choices: tuple[int, ...]) -> NoReturn:
    raise SchemeError(f"{value} asked for; choose one of {', '.join(map(str, choices))}.")
