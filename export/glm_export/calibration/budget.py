"""Mixed precision: the schemes of least KL whose bytes fit a budget.

What a matrix costs is measured once, with one scheme (`sensitivity.py`); other schemes cost in
proportion to the squared error they leave in a sample of its rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glm_export.checkpoint.parameters import ParameterRows
from glm_export.errors import OptionsError
from glm_export.plan.plan import ExportPlan, measure_bytes
from glm_export.plan.schemes import Schemes
from glm_quantize import (
    SUPPORTED_BLOCK_SIZES,
    FloatArray,
    Scheme,
    dequantize,
    find_method,
)
from glm_quantize.assignment import Choice, assign_schemes

# Every matrix's rows divide into blocks of 32 if the model can be quantized at all.
REFERENCE_SCHEME = Scheme(4, 32, is_symmetric=False)
_SAMPLED_ROWS = 128


@dataclass(frozen=True)
class Budget:
    """What the chosen matrices may take.

    Attributes:
        size_bytes: of all tensors of the checkpoint, scales included.
        bits_per_weight: the same over the number of weights.
    """

    size_bytes: int
    bits_per_weight: float


def set_budget(plan: ExportPlan, bits_per_weight: float | None) -> Budget:
    """The asked average, or what the plan (int4 block 32 everywhere) takes."""
    bits = plan.bits_per_weight if bits_per_weight is None else bits_per_weight
    return Budget(int(bits * plan.parameters / 8 + 1e-6), bits)


def list_candidates(inputs: int, block_size: int | None, *, is_symmetric: bool) -> list[Scheme]:
    """Schemes that a matrix with rows of so many weights may get.

    Args:
        inputs: weights of a row.
        block_size: the only one allowed; None: all.
        is_symmetric: no zero points allowed.
    """
    sizes = [size for size in SUPPORTED_BLOCK_SIZES if inputs % size == 0]
    sizes = [size for size in sizes if block_size in (None, size)]
    symmetries = (True,) if is_symmetric else (True, False)
    return [Scheme(bits, size, sym) for bits in (4, 8) for size in sizes for sym in symmetries]


def choose_schemes(
    parameters: ParameterRows,
    plan: ExportPlan,
    candidates: Mapping[str, list[Scheme]],
    costs: Mapping[str, float],
    budget: Budget,
) -> Schemes:
    """Solve for the assignment.

    Args:
        parameters: the float values, for a sample of each matrix's rows.
        plan: what every other tensor takes.
        candidates: the matrices to choose for, and their schemes.
        costs: KL of each in nats if only it were quantized with `REFERENCE_SCHEME`.
        budget: for all tensors together.

    Raises:
        BudgetError: the budget is too small; `require_possible` says so before.
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
    """Refuse a budget that even the smallest schemes exceed, before anything is measured.

    Raises:
        OptionsError: names the nearest possible.
    """
    least = _count_others(plan, candidates)
    for name, schemes in candidates.items():
        shape = plan.tensors[name].shape
        least += min(measure_bytes(name, shape, scheme, plan.dtype) for scheme in schemes)
    if least > budget.size_bytes:
        raise OptionsError(
            f"bits per weight {budget.bits_per_weight:.4g} asked for, but this model takes at "
            f"least {_round_up(8 * least / plan.parameters)}; ask for that or more."
        )


def _count_others(plan: ExportPlan, candidates: Mapping[str, list[Scheme]]) -> int:
    """Bytes of the checkpoint's tensors whose schemes are not to be chosen."""
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
