"""Mixed precision: the choice of schemes with the least KL divergence within a size budget.

The cost of each matrix is measured with one scheme (`sensitivity.py`). The costs of its other
schemes are proportional to their squared rounding errors in a sample of its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glm_export.checkpoint.parameters import ParameterRows
from glm_export.errors import OptionsError
from glm_export.plan.plan import ExportPlan, measure_bytes
from glm_export.plan.schemes import Schemes, find_block_size
from glm_quantize import (
    SUPPORTED_BLOCK_SIZES,
    FloatArray,
    Scheme,
    dequantize,
    find_method,
)
from glm_quantize.assignment import Choice, assign_schemes

# If the model can be quantized at all, every row of a matrix is a multiple of 32 weights.
REFERENCE_SCHEME = Scheme(4, 32, is_symmetric=False)
_SAMPLED_ROWS = 128


@dataclass(frozen=True)
class Budget:
    """The size that all tensors of the checkpoint may have.

    Attributes:
        size_bytes: total size, scales and zero points included.
        bits_per_weight: this size in bits divided by the number of weights.
    """

    size_bytes: int
    bits_per_weight: float


def set_budget(plan: ExportPlan, bits_per_weight: float | None) -> Budget:
    """Return the budget of the requested average, or without one the size of the plan."""
    bits = plan.bits_per_weight if bits_per_weight is None else bits_per_weight
    return Budget(int(bits * plan.parameters / 8 + 1e-6), bits)


def list_candidates(inputs: int, block_size: int | None, *, is_symmetric: bool) -> list[Scheme]:
    """List the schemes that a matrix may get.

    Args:
        inputs: number of weights in a row.
        block_size: the block size of rows that divide into it, else the next smaller one is
            taken; None allows all.
        is_symmetric: True to allow only schemes without zero points.
    """
    sizes = [size for size in SUPPORTED_BLOCK_SIZES if inputs % size == 0]
    if block_size is not None:
        sizes = [size for size in sizes if size == find_block_size(inputs, block_size)]
    symmetries = (True,) if is_symmetric else (True, False)
    return [Scheme(bits, size, sym) for bits in (4, 8) for size in sizes for sym in symmetries]


def choose_schemes(
    parameters: ParameterRows,
    plan: ExportPlan,
    candidates: Mapping[str, list[Scheme]],
    costs: Mapping[str, float],
    budget: Budget,
) -> Schemes:
    """Choose a scheme for each matrix, with the least KL divergence within the budget.

    Args:
        parameters: float values, of which a sample of each matrix's rows is read.
        plan: plan of all tensors, for the sizes of the other ones.
        candidates: possible schemes of each matrix.
        costs: KL divergence in nats if only this matrix is quantized with `REFERENCE_SCHEME`.
        budget: budget of all tensors.

    Raises:
        BudgetError: the budget is too small; `require_possible` checks this before.
    """
    choices = {}
    for name, schemes in candidates.items():
        rows = parameters.sample_rows(name, _SAMPLED_ROWS)
        reference = _squared_error(rows, REFERENCE_SCHEME)
        shape = plan.tensors[name].shape
        choices[name] = [
            Choice(
                scheme,
                measure_bytes(name, shape, scheme, plan.dtype),
                costs[name] * _squared_error(rows, scheme) / max(reference, 1e-30),
            )
            for scheme in schemes
        ]
    chosen = assign_schemes(choices, budget.size_bytes - _count_others(plan, candidates))
    return {name: choice.scheme for name, choice in chosen.items()}


def require_possible(
    plan: ExportPlan, candidates: Mapping[str, list[Scheme]], budget: Budget
) -> None:
    """Refuse a budget that the smallest schemes exceed.

    Raises:
        OptionsError: the budget is too small; the message names the smallest possible one.
    """
    least = _count_others(plan, candidates)
    for name, schemes in candidates.items():
        shape = plan.tensors[name].shape
        least += min(measure_bytes(name, shape, scheme, plan.dtype) for scheme in schemes)
    if least > budget.size_bytes:
        raise OptionsError(
            f"bits per weight {budget.bits_per_weight:.4g} is requested, but this model needs at "
            f"least {_round_up(8 * least / plan.parameters)}; choose that or more."
        )


def _count_others(plan: ExportPlan, candidates: Mapping[str, list[Scheme]]) -> int:
    """Return the bytes of the checkpoint's other tensors."""
    return sum(
        tensor.size_bytes
        for name, tensor in plan.tensors.items()
        if tensor.source and name not in candidates
    )


def _round_up(bits: float) -> float:
    return float(np.ceil(bits * 1000) / 1000)


def _squared_error(rows: FloatArray, scheme: Scheme) -> float:
    method = find_method("rtn-search" if scheme.bits < 8 else "rtn")
    return float(np.square(dequantize(method(rows, scheme)) - rows, dtype=np.float64).sum())
