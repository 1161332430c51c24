"""Calibrated quantization, layer by layer, on inputs from the layers that are already quantized.

Memory holds the float weights of one layer and the hidden states of the calibration tokens, but
never the whole model. Read `decoder.py` and `state.py` before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from glm_export.calibration.folding import (
    Folding,
    fold_reader,
    search_head_folding,
    search_layer_folding,
)
from glm_export.calibration.open_layer import LINEARS, OpenLayer
from glm_export.calibration.row_pool import RowPool, restored_threads
from glm_export.calibration.state import CalibrationState
from glm_export.checkpoint.parameters import ParameterRows
from glm_export.errors import CheckpointError, describe_overflow
from glm_export.model import operators
from glm_export.model.architectures import DecoderConfig
from glm_export.model.layer_stream import WINDOWS_AT_ONCE, LayerStream
from glm_export.plan.schemes import Schemes
from glm_quantize import (
    FloatArray,
    InputStatistics,
    Method,
    QuantizationError,
    QuantizedRows,
    RowQuantizer,
    SingularStatisticsError,
    dequantize,
    find_method,
    round_scales,
)
from glm_runtime.arrays import TokenArray
from glm_runtime.progress import Advance

_EMBEDDING, _HEAD = "embed_tokens.weight", "lm_head.weight"
# Largest number of weights that one thread quantizes at a time; a method needs several times their
# memory. With half of it two threads wait longer for the interpreter lock and are 10 % slower.
_NUMBERS_AT_ONCE = 1 << 22
_SAMPLES = 512  # number of inputs that AWQ's search uses
_FALLBACK = "rtn-search"


@dataclass(frozen=True)
class WalkTask:
    """The settings of a calibration.

    Attributes:
        config: shape of the decoder.
        parameters: float values of the decoder.
        schemes: schemes of the matrices.
        method: calibrated quantization method.
        scale_dtype: "fp32" or "fp16", type of the stored scales.
        windows: [n, S] tokens.
        embedding_moments: [C, C] moments that weight errors of the embedding; None if not measured.
        device: PyTorch device that computes.
    """

    config: DecoderConfig
    parameters: ParameterRows
    schemes: Schemes
    method: Method
    scale_dtype: str
    windows: TokenArray
    embedding_moments: FloatArray | None
    device: str


@dataclass
class Walk:
    """One pass through the decoder, which quantizes every matrix. `run` stores codes in the state.

    Attributes:
        task: settings of the calibration.
        state: finished work on disk.
        advance: called with the number of weights just done.
        folding: scales folded so far (AWQ).
    """

    task: WalkTask
    state: CalibrationState
    advance: Advance
    folding: Folding = field(default_factory=Folding)

    def __post_init__(self) -> None:
        """Start the threads that all layers share."""
        self._pool = RowPool(self.task.device)

    def run(self) -> None:
        """Run all stages that are not complete.

        Raises:
            CheckpointError: a tensor cannot be read, holds NaN or Inf, or cannot be rounded.
        """
        try:
            with torch.inference_mode(), restored_threads():
                self._run_stages()
        except QuantizationError as error:
            raise CheckpointError(f"a matrix cannot be rounded: {error}") from error

    def _run_stages(self) -> None:
        config = self.task.config
        last = config.num_layers if config.is_tied else config.num_layers + 1
        for stage in range(last + 1):
            if stage < self.state.stages_done:
                self._restore(stage)
                continue
            if stage > config.num_layers:
                self._do_head()
                self.state.save_stage(None)
                continue
            hidden = self._do_layer(stage - 1) if stage else self._do_embedding()
            self.state.save_stage(hidden)

    def _restore(self, stage: int) -> None:
        found = self._load_folding(stage)
        if found is not None:
            self.folding = self.folding.merge(found)
        self.advance(self._count_weights(stage))

    def _count_weights(self, stage: int) -> int:
        prefix = {0: "embed_tokens.", self.task.config.num_layers + 1: "lm_head."}
        wanted = prefix.get(stage, f"layers.{stage - 1}.")
        sources = self.task.parameters.sources
        return sum(int(np.prod(s.shape)) for n, s in sources.items() if n.startswith(wanted))

    def _do_embedding(self) -> FloatArray:
        """Quantize the embedding, and return its dequantized rows for the calibration tokens."""
        task = self.task
        hidden = np.empty((*task.windows.shape, task.config.hidden_size), dtype=np.float32)
        statistics = None
        if task.embedding_moments is not None:
            statistics = InputStatistics(task.embedding_moments, task.windows.size)
        for first_row, rows in self._quantize_rows(_EMBEDDING, statistics):
            is_here = (task.windows >= first_row) & (task.windows < first_row + len(rows))
            hidden[is_here] = rows[task.windows[is_here] - first_row]
        return hidden

    def _do_layer(self, index: int) -> FloatArray:
        """Quantize a layer's matrices in order, and return the output of the quantized layer."""
        read = fold_reader(self.task.parameters.read, self.folding)
        layer = OpenLayer(LayerStream(self.task.config, read, self.task.device), index)
        hidden = self.state.load_hidden()
        if self.task.method.is_folding:
            self._fold_layer(layer, hidden)
        batches = [hidden[i : i + WINDOWS_AT_ONCE] for i in range(0, len(hidden), WINDOWS_AT_ONCE)]
        for name in LINEARS:
            inputs = layer.start(name, batches)
            self._quantize_linear(layer, name, inputs)
        return np.concatenate(list(layer.finish()))

    def _do_head(self) -> None:
        """Quantize the head, unless the embeddings are tied."""
        norm = self.folding.apply("norm.weight", 0, self.task.parameters.read("norm.weight"))
        epsilon = self.task.config.rms_norm_epsilon
        hidden = torch.from_numpy(self.state.load_hidden())
        normed = [operators.rms_norm(x, torch.from_numpy(norm), epsilon) for x in hidden]
        scheme = self.task.schemes.get(_HEAD)
        if self.task.method.is_folding and scheme is not None:
            samples = _take_samples(torch.cat(normed))
            found = self._load_folding(self.state.stages_done)
            if found is None:
                weight = self.task.parameters.read(_HEAD)
                found = search_head_folding(self.task.config, weight, samples, scheme)
            self._keep_folding(found)
            columns = self.folding.columns.get(_HEAD)
            if columns is not None:
                normed = [x / torch.from_numpy(columns) for x in normed]
        statistics = None if scheme is None else self._measure(normed)
        for _ in self._quantize_rows(_HEAD, statistics):
            pass

    def _quantize_rows(
        self, name: str, statistics: InputStatistics | None
    ) -> Iterable[tuple[int, FloatArray]]:
        """Quantize and store a matrix that does not fit in memory; yield dequantized rows."""
        scheme = self.task.schemes.get(name)
        is_done = name in self.state.matrices_done
        quantize = None if scheme is None or is_done else self._prepare(name, statistics)

        def do_run(run: tuple[int, FloatArray]) -> _Rounded:
            if is_done:
                return _Rounded(run[0], self._read_kept(name, *run))
            folded = self.folding.apply(name, *run)
            return (
                _Rounded(run[0], folded)
                if quantize is None
                else self._round(run[0], folded, quantize)
            )

        runs = self.task.parameters.iterate_rows(name, _NUMBERS_AT_ONCE)
        for rounded in self._pool.map(do_run, runs):
            self._keep(name, rounded)
            yield rounded.first_row, rounded.weight
            self.advance(rounded.weight.size)
        if quantize is not None:
            self.state.finish_matrix(name)

    def _quantize_linear(self, layer: OpenLayer, short: str, inputs: Iterable[Tensor]) -> None:
        name = f"layers.{layer.index}.{short}.weight"
        weight = layer.get_weight(short)
        step = _split_rows(*weight.shape)
        starts = range(0, len(weight), step)
        if name in self.state.matrices_done:
            for start in starts:
                rows = weight[start : start + step]
                rows.copy_(torch.from_numpy(self._read_kept(name, start, rows)))
        elif self.task.schemes.get(name) is not None:
            quantize = self._prepare(name, self._measure(inputs))

            def do_run(start: int) -> _Rounded:
                return self._round(start, weight[start : start + step].cpu().numpy(), quantize)

            for rounded in self._pool.map(do_run, starts):
                self._keep(name, rounded)
                stored = torch.from_numpy(rounded.weight)
                weight[rounded.first_row : rounded.first_row + len(stored)] = stored
            self.state.finish_matrix(name)
        self.advance(weight.numel())

    def _read_kept(self, name: str, first_row: int, weight: FloatArray | Tensor) -> FloatArray:
        """Return the rows of `weight` as an earlier run quantized them."""
        scheme = self.task.schemes[name]
        assert scheme is not None
        rows = range(first_row, first_row + len(weight))
        return dequantize(self.state.read_codes(name, scheme, weight.shape[1], rows))

    def _prepare(self, name: str, statistics: InputStatistics | None) -> RowQuantizer:
        scheme = self.task.schemes[name]
        assert scheme is not None
        fallback = find_method(_FALLBACK)
        if statistics is None:
            return fallback.prepare(scheme, None, self.task.device)
        try:
            return self.task.method.prepare(scheme, statistics, self.task.device)
        except SingularStatisticsError as error:
            self.state.fallbacks[name] = f"{error}; rounded by {_FALLBACK}"
            return fallback.prepare(scheme, None, self.task.device)

    def _round(self, first_row: int, weight: FloatArray, quantize: RowQuantizer) -> "_Rounded":
        """Quantize some rows; several threads call it."""
        rows = round_scales(quantize(weight), self.task.scale_dtype)
        return _Rounded(first_row, dequantize(rows), rows)

    def _keep(self, name: str, rounded: "_Rounded") -> None:
        if rounded.rows is None:
            return
        if not np.isfinite(rounded.rows.scales).all():
            place = f"{name} from row {rounded.first_row} on has"
            raise describe_overflow(place, self.task.scale_dtype)
        self.state.write_codes(name, rounded.first_row, rounded.rows)

    def _measure(self, inputs: Iterable[Tensor]) -> InputStatistics:
        """Compute the second moments of inputs [..., C]."""
        moments: Tensor | None = None
        count = 0
        for batch in inputs:
            flat = batch.reshape(-1, batch.shape[-1]).to(self.task.device)
            if moments is None:
                moments = torch.zeros(flat.shape[1], flat.shape[1], device=flat.device)
            moments.addmm_(flat.T, flat)
            count += len(flat)
        assert moments is not None
        return InputStatistics((moments / count).cpu().numpy(), count)

    def _fold_layer(self, layer: OpenLayer, hidden: FloatArray) -> None:
        """Fold AWQ's scales into the float layer: those of a killed run, or new ones."""
        found = self._load_folding(self.state.stages_done) or self._search_folding(layer, hidden)
        prefix = f"layers.{layer.index}."
        for short, value in layer.module.state_dict().items():
            folded = found.apply(prefix + short, 0, value.cpu().numpy())
            value.copy_(torch.from_numpy(folded))
        self._keep_folding(found)

    def _search_folding(self, layer: OpenLayer, hidden: FloatArray) -> Folding:
        batches = [hidden[:WINDOWS_AT_ONCE]]
        samples = {
            name: _take_samples(torch.cat([x.flatten(0, 1) for x in layer.start(name, batches)]))
            for name in LINEARS
        }
        weights = {name: value.cpu().numpy() for name, value in layer.module.state_dict().items()}
        prefix = f"layers.{layer.index}."
        schemes = {name: self.task.schemes.get(f"{prefix}{name}.weight") for name in LINEARS}
        return search_layer_folding(self.task.config, layer.index, weights, samples, schemes)

    def _load_folding(self, stage: int) -> Folding | None:
        arrays = self.state.load_arrays(f"folding-{stage}")
        return None if arrays is None else _unflatten(arrays)

    def _keep_folding(self, found: Folding) -> None:
        self.state.save_arrays(f"folding-{self.state.stages_done}", _flatten(found))
        self.folding = self.folding.merge(found)


@dataclass(frozen=True)
class _Rounded:
    """Some rows: their values in the exported file, and their codes unless they stay float."""

    first_row: int
    weight: FloatArray
    rows: QuantizedRows | None = None


def _split_rows(rows: int, columns: int) -> int:
    """Return the rows per run, for an even number of equal runs, so two threads end together."""
    pairs = -(-rows * columns // (2 * _NUMBERS_AT_ONCE))
    return max(1, -(-rows // (2 * pairs)))


def _take_samples(inputs: Tensor) -> FloatArray:
    """Return at most `_SAMPLES` evenly spaced rows of [T, C]."""
    samples: FloatArray = inputs[:: max(1, len(inputs) // _SAMPLES)][:_SAMPLES].cpu().numpy()
    return samples


def _flatten(folding: Folding) -> dict[str, FloatArray]:
    named = {f"rows {name}": values for name, values in folding.rows.items()}
    return named | {f"columns {name}": values for name, values in folding.columns.items()}


def _unflatten(arrays: dict[str, FloatArray]) -> Folding:
    kinds: dict[str, dict[str, FloatArray]] = {"rows": {}, "columns": {}}
    for key, values in arrays.items():
        kind, _, name = key.partition(" ")
        kinds[kind][name] = values
    return Folding(kinds["rows"], kinds["columns"])
