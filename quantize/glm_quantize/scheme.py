"""A scheme: bits per code, block size and symmetry. The methods choose the codes."""

from dataclasses import dataclass
from typing import NoReturn

from glm_quantize.errors import SchemeError

# The values that both MatMulNBits and GatherBlockQuantized of ONNX Runtime support on all devices.
SUPPORTED_BITS = (2, 4, 8)
SUPPORTED_BLOCK_SIZES = (32, 64, 128, 256)


@dataclass(frozen=True)
class Scheme:
    """How a weight [N, C] is stored: each row has C / block_size blocks with one scale each.

    Attributes:
        bits: bits per code: 2 (experimental), 4 or 8.
        block_size: number of inputs that share one scale, in `SUPPORTED_BLOCK_SIZES`.
        is_symmetric: True if every zero point is 2^(bits-1); False if each block stores its own.

    Raises:
        SchemeError: the kernels do not support a value.
    """

    bits: int
    block_size: int
    is_symmetric: bool

    def __post_init__(self) -> None:
        """Check the values."""
        if self.bits not in SUPPORTED_BITS:
            _refuse(f"bits is {self.bits}", SUPPORTED_BITS)
        if self.block_size not in SUPPORTED_BLOCK_SIZES:
            _refuse(f"block size is {self.block_size}", SUPPORTED_BLOCK_SIZES)

    @property
    def name(self) -> str:
        """Short name, for example `int4-b32-asym`."""
        return f"int{self.bits}-b{self.block_size}-{'sym' if self.is_symmetric else 'asym'}"

    @property
    def max_code(self) -> int:
        """Largest code: 3, 15 or 255."""
        return (1 << self.bits) - 1

    @property
    def default_zero_point(self) -> int:
        """Zero point 2^(bits-1), which the kernels assume if a block stores none."""
        return 1 << (self.bits - 1)

    def count_blocks(self, inputs: int) -> int:
        """Return the number of blocks in a row of `inputs` weights.

        Raises:
            SchemeError: `inputs` is not a multiple of the block size.
        """
        if inputs % self.block_size:
            raise SchemeError(
                f"a row of {inputs} weights does not divide into blocks of {self.block_size}; "
                f"choose a block size that divides {inputs}."
            )
        return inputs // self.block_size


def _refuse(found: str, choices: tuple[int, ...]) -> NoReturn:
    raise SchemeError(f"{found}; choose one of {', '.join(map(str, choices))}.")
