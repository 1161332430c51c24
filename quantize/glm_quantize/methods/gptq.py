"""GPTQ: columns are rounded one after the other, and later ones compensate the errors before them.

Let L D Lᵀ be the decomposition of H with its columns in reverse order. The compensation of a column
is then the product of the earlier errors and one row of L, so no inverse of H is needed. This file
uses PyTorch because it also runs on a GPU. Read `rtn_search.py` before; it chooses the scales.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glm_quantize.blocks import block_parameters
from glm_quantize.codes import ByteArray, FloatArray, QuantizedRows
from glm_quantize.errors import SingularStatisticsError
from glm_quantize.methods.rtn_search import search_scales
from glm_quantize.scheme import Scheme
from glm_quantize.statistics import InputStatistics

# Damping: shares of the mean of H's diagonal that are added to the diagonal, tried in turn until
# the Cholesky decomposition succeeds. The first is the paper's (section 3.3, step 3).
DAMPING = (0.01, 0.1, 1.0)
# Runs of at most this many columns are compensated column by column, longer runs by matrix
# products. 16 to 64 are equally fast on an idle machine. On a busy machine fewer calls are better,
# since each call waits for all threads.
_COLUMNS_BY_VECTOR = 32


@dataclass(frozen=True)
class GptqRounder:
    """Rounds the rows of one weight, each independently.

    Attributes:
        scheme: scheme of the codes.
        importance: [C] mean squares of the inputs.
        damping: number added to the diagonal of H, divided by the diagonal's largest entry.
        order: [C] columns by falling mean square ("activation order"), so that many columns are
            left to compensate the most important ones. Scales are chosen before, so a block is
            still a range of adjacent columns.
        feedback: [C, C] in this order. Below the diagonal, row k holds the share of each earlier
            column's error that column k compensates.
    """

    scheme: Scheme
    importance: FloatArray
    damping: float
    order: npt.NDArray[np.int64]
    feedback: Tensor

    def __call__(self, weight: FloatArray) -> QuantizedRows:
        """Round rows, which needs four times their memory.

        Args:
            weight: [N, C] float32, finite.

        Returns:
            Codes that greedily minimize the mean squared error of the outputs over the calibration
            inputs, with the scales and zero points of `search_scales`.

        Raises:
            SchemeError: C is not a multiple of the block size.
            QuantizationError: the weight holds NaN or Inf.
        """
        rows = search_scales(weight, self.scheme, self.importance)
        grid = ColumnGrid.transpose(rows, self.feedback.device)
        return replace(rows, codes=grid.to_codes(self._round_columns(weight, grid)))

    def _round_columns(self, weight: FloatArray, grid: "ColumnGrid") -> Tensor:
        """Return the rounded weight [C, N] in whole steps of the scales."""
        weights = transpose_rows(weight, self.feedback.device)
        steps = torch.empty_like(weights)
        rest = weights[torch.from_numpy(self.order).to(weights.device)]
        scales, inverses = grid.scales.unbind(), grid.scales.reciprocal().unbind()
        lowest, highest = grid.lowest.unbind(), grid.highest.unbind()
        order, targets = self.order.tolist(), rest.unbind()

        def round_column(place: int) -> None:
            column, target = order[place], targets[place]
            block = column // self.scheme.block_size
            rounded = torch.mul(target, inverses[block], out=steps[column]).round_()
            torch.clamp(rounded, lowest[block], highest[block], out=rounded)
            torch.addcmul(weights[column], rounded, scales[block], value=-1, out=target)

        visit_columns(Chain(rest, rest, self.feedback), range(len(order)), round_column)
        return steps


@dataclass(frozen=True)
class ColumnGrid:
    """Transposed scales of a range of rows: value = step * scale, step = code - zero point.

    Attributes:
        scheme: scheme of the codes.
        scales: [C / B, N] float32.
        lowest: [C / B, N] float32, step of code 0.
        highest: [C / B, N] float32, step of the largest code.
    """

    scheme: Scheme
    scales: Tensor
    lowest: Tensor
    highest: Tensor

    @classmethod
    def transpose(cls, rows: QuantizedRows, device: torch.device) -> "ColumnGrid":
        """Transpose the scales and zero points of rows."""
        scales, zero_points = block_parameters(rows)
        lowest = transpose_rows(-zero_points.reshape(rows.scales.shape), device)
        transposed = transpose_rows(scales.reshape(rows.scales.shape), device)
        return cls(rows.scheme, transposed, lowest, lowest + rows.scheme.max_code)

    def from_codes(self, codes: ByteArray) -> Tensor:
        """Convert codes [N, C] to steps [C, N]."""
        steps = torch.from_numpy(codes).to(self.scales.device).T.to(torch.float32).contiguous()
        blocked = steps.view(-1, self.scheme.block_size, steps.shape[1])
        return blocked.add_(self.lowest[:, None]).view(steps.shape)

    def to_codes(self, steps: Tensor) -> ByteArray:
        """Convert steps [C, N] to codes [N, C]. The steps are overwritten."""
        blocked = steps.view(-1, self.scheme.block_size, steps.shape[1])
        codes = blocked.sub_(self.lowest[:, None]).to(torch.uint8).view(steps.shape)
        result: ByteArray = codes.T.contiguous().cpu().numpy()
        return result


@dataclass(frozen=True)
class Chain:
    """Columns that depend on earlier ones: rest[k] += sum over j < k of F[k, j] errors[j].

    Attributes:
        rest: [c, N] values of the columns; column k is complete when it is visited.
        errors: [c, N] errors of the visited columns; may be `rest` itself.
        feedback: [c, c], F; only the entries below the diagonal are read.
    """

    rest: Tensor
    errors: Tensor
    feedback: Tensor


def visit_columns(chain: Chain, columns: range, visit: Callable[[int], None]) -> None:
    """Call `visit`, which writes `errors[k]`, for each column k in order.

    The range is halved recursively, so that nearly all work is products of large matrices.
    """
    first, last = columns.start, columns.stop
    if len(columns) > _COLUMNS_BY_VECTOR:
        middle = (first + last) // 2
        visit_columns(chain, range(first, middle), visit)
        feedback = chain.feedback[middle:last, first:middle]
        chain.rest[middle:last].addmm_(feedback, chain.errors[first:middle])
        visit_columns(chain, range(middle, last), visit)
        return
    for k in columns:
        if k > first:
            chain.rest[k].addmv_(chain.errors[first:k].T, chain.feedback[k, first:k])
        visit(k)


def transpose_rows(rows: FloatArray, device: torch.device) -> Tensor:
    """Copy [N, C] to [C, N], so that a column is contiguous."""
    return torch.from_numpy(np.array(rows.T, order="C")).to(device)


def prepare_gptq(scheme: Scheme, statistics: InputStatistics, device: str = "cpu") -> GptqRounder:
    """Compute the order of the columns and the factor of H, which all rows share.

    The result takes as much memory as the moments; computing it takes twice as much more.

    Args:
        scheme: scheme of the codes.
        statistics: statistics of the weight's inputs.
        device: PyTorch device that computes.

    Raises:
        SingularStatisticsError: H is zero, holds NaN or Inf, or has no Cholesky decomposition even
            with the largest damping.

    Source: Frantar et al. 2022, algorithm 1 (arXiv:2210.17323), in the form of Chee et al. 2023,
    section 3 (arXiv:2307.13304), which is equivalent.
    """
    if not np.isfinite(statistics.moments).all():
        raise SingularStatisticsError("the inputs' second moments hold NaN or Inf")
    diagonal = np.diagonal(statistics.moments)
    if diagonal.max() <= 0:
        raise SingularStatisticsError("the inputs were all zero")
    order = np.argsort(-diagonal, kind="stable")
    damping, feedback = _factor(statistics.moments, order, device)
    return GptqRounder(scheme, statistics.mean_squares, damping, order, feedback)


def _factor(moments: FloatArray, order: npt.NDArray[np.int64], device: str) -> tuple[float, Tensor]:
    """Return the damping that was needed, and `GptqRounder.feedback`.

    H in reverse order is Uᵀ U. U in reverse order is lower triangular; its rows divided by their
    diagonal entries are the feedback.
    """
    backwards = order[::-1]
    permuted = torch.from_numpy(moments[np.ix_(backwards, backwards)]).to(device)
    permuted /= permuted.diagonal().max()  # reciprocals of tiny inputs would overflow
    diagonal = permuted.diagonal().clone()
    for share in DAMPING:
        damping = share * float(diagonal.mean())
        permuted.diagonal().copy_(diagonal + damping)
        upper, status = torch.linalg.cholesky_ex(permuted, upper=True)
        if int(status) == 0 and bool(upper.diagonal().isfinite().all()):
            del permuted
            forwards = upper.flip(0, 1)
            return damping, forwards.div_(forwards.diagonal().clone()[:, None])
        del upper  # frees a matrix before the next attempt
    raise SingularStatisticsError("the inputs' second moments cannot be factored")
