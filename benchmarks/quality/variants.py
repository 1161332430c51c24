"""What is compared, as data: our recipes, ONNX Runtime's methods, llama.cpp's file types.

Each row here is a row of the table. Names are unique in their family.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """One of our exports.

    Attributes:
        name: its name in the table.
        options: keyword arguments of `glm_export.ExportOptions`, besides the two folders.
    """

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class OrtVariant:
    """One run of `peers/ort_quantizer.py`; `settings` are the fields of its `Settings`."""

    name: str
    settings: Mapping[str, Any]


def _recipe(
    quant: str, block_size: int, method: str = "rtn", *, is_symmetric: bool = False, **more: int
) -> Recipe:
    symmetry = " sym" if is_symmetric else ""
    extra = "".join(f" {key.replace('_', ' ')} {value}" for key, value in more.items())
    options = {
        "quant": quant,
        "method": method,
        "block_size": block_size,
        "is_symmetric": is_symmetric,
        **more,
    }
    return Recipe(f"{quant} b{block_size}{symmetry} {method}{extra}", options)


def _ort(method: str, bits: int, block_size: int, **more: bool) -> OrtVariant:
    extra = "".join(f" {key.removeprefix('is_')}" for key in more)
    settings = {"method": method, "bits": bits, "block_size": block_size, **more}
    return OrtVariant(f"{method} int{bits} b{block_size}{extra}", settings)


_MANY_TOKENS = 32768


def _mixed(bits: float | None) -> Recipe:
    """Mixed precision within a budget, with more calibration tokens; None: `--quant int4` alone."""
    if bits is None:
        return Recipe("int4 (default)", {"quant": "int4"})
    options = {"bits_per_weight": bits, "calibration_tokens": _MANY_TOKENS}
    return Recipe(f"within {bits:g} bits, {_MANY_TOKENS // 1024}k tokens", options)


OURS = (
    *(_recipe("int4", block, "rtn") for block in (32, 64, 128)),
    _recipe("int4", 32, "rtn", is_symmetric=True),
    _recipe("int4", 32, "rtn-search"),
    _recipe("int4", 128, "rtn-search"),
    _recipe("int4", 32, "hqq"),
    _recipe("int4", 128, "hqq"),
    _recipe("int4", 32, "awq"),
    _recipe("int4", 128, "awq"),
    _recipe("int4", 32, "gptq"),
    _recipe("int4", 128, "gptq"),
    *(_recipe("int4", block, "gptq-refine") for block in (32, 64, 128, 256)),
    _recipe("int4", 128, "gptq-refine", is_symmetric=True),
    _recipe("int4", 32, "awq-gptq"),
    _recipe("int4", 128, "awq-gptq"),
    *(_mixed(bits) for bits in (4.3, 4.45, 4.59, 4.75, 4.94, 4.97, 5.13)),
    _mixed(None),
    _recipe("int8", 128, "rtn"),
    _recipe("int8", 128, "rtn-search"),
    _recipe("int8", 32, "rtn-search"),
    _recipe("int8", 32, "gptq-refine"),
    _recipe("int8", 128, "rtn-search", accuracy_level=0),
    _recipe("int8", 128, "gptq-refine", accuracy_level=0),
    _recipe("int8", 32, "gptq-refine", accuracy_level=0),
    _recipe("int2", 32, "gptq-refine"),
)

# The two that bounds compare with.
PLAIN_INT4 = "int4 b32 rtn"
DEFAULT_INT4 = "int4 (default)"

ORT = (
    _ort("default", 4, 32),
    _ort("default", 4, 32, is_symmetric=True),
    _ort("default", 4, 64),
    _ort("default", 4, 128),
    _ort("hqq", 4, 32),
    _ort("hqq", 4, 64),
    _ort("hqq", 4, 128),
    _ort("k_quant", 4, 32),
    _ort("k_quant", 4, 32, is_mixed=True),
    _ort("default", 8, 32),
    _ort("k_quant", 8, 32),
)

# File types of llama.cpp, without an importance matrix.
LLAMA = ("Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
