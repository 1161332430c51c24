"""Tables of the rotary embedding: cosine and sine of the angle of each pair at each position.

The exporter writes them into a folder. With other settings at load, they replace the folder's
tables inside ONNX Runtime, and the folder stays as it is. Angles are products of float32 numbers,
as in transformers, so that far positions have the same rounding error, a few thousandths of a
radian at 100,000 tokens.
Source: Su et al. 2021, eq. 15 (arXiv:2104.09864); for YaRN, Peng et al. 2023, section 3
(arXiv:2309.00071), and for its details transformers' `modeling_rope_utils.py`.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from glm_runtime.errors import FolderError, SamplingError
from glm_runtime.folder.manifest import Manifest, RopeEntry, TensorEntry, Yarn

Table = npt.NDArray[np.float32]

WHOLE_TABLES = ("cos", "sin")
COARSE_TABLES = ("cos_coarse", "sin_coarse")
FINE_TABLES = ("cos_fine", "sin_fine")
ROPE_SCALINGS = ("yarn", "none")
_MOST_POSITIONS = 1 << 22  # tables of 1 GB with 64 rotary dimensions


@dataclass(frozen=True)
class RopeScaling:
    """Rotary settings at load, which replace those of the folder.

    Attributes:
        kind: "yarn" extends the context; "none" is the embedding without scaling.
        factor: YaRN scaling factor, above 1.
        original_context: number of tokens of the training context; `None` takes the folder's.

    Raises:
        SamplingError: a value is not supported, or a YaRN value is given without "yarn".
    """

    kind: str = "yarn"
    factor: float | None = None
    original_context: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kind not in ROPE_SCALINGS:
            raise SamplingError(f"rope scaling is {self.kind!r}; choose yarn or none.")
        if self.kind == "none" and (self.factor, self.original_context) != (None, None):
            raise SamplingError(
                "a factor or an original context is given with rope scaling none; leave it out, or "
                "choose yarn."
            )
        if self.kind == "yarn" and (self.factor is None or not 1 < self.factor < _MOST_POSITIONS):
            raise SamplingError(f"factor is {self.factor} with yarn; choose a number such as 4.")
        if self.original_context is not None and self.original_context < 1:
            raise SamplingError(
                f"original context is {self.original_context}; choose a number such as 32768."
            )


def apply_scaling(
    manifest: Manifest, scaling: RopeScaling | None
) -> tuple[Manifest, dict[str, npt.NDArray[np.floating]]]:
    """Return the manifest with a scaling, and the tables that replace the folder's, by name.

    Raises:
        FolderError: the folder does not say how its tables were computed.
        SamplingError: the context would be too long, or `scaling` is of another class.
    """
    if scaling is None:
        return manifest, {}
    if not isinstance(scaling, RopeScaling):
        raise SamplingError(
            f"rope_scaling is {scaling!r:.80} where a RopeScaling is expected; write "
            'RopeScaling("yarn", 4.0), or RopeScaling("none").'
        )
    manifest = scale_model(manifest, scaling)
    return manifest, make_tables(manifest)


def scale_model(manifest: Manifest, scaling: RopeScaling) -> Manifest:
    """Return the manifest of a folder with other rotary settings and their context length.

    Raises:
        FolderError: the folder does not say how its tables were computed.
        SamplingError: the context would be too long.
    """
    rope = manifest.model.rope
    if rope is None:
        raise FolderError(
            f"the manifest of {manifest.source.name!r} has no rotary settings, which rope scaling "
            "at load needs, because an older glm-export wrote it; export the checkpoint again."
        )
    yarn, context_length = None, rope.original_context
    if scaling.kind == "yarn":
        assert scaling.factor is not None
        yarn = Yarn(
            factor=scaling.factor,
            original_context=scaling.original_context or rope.original_context,
            attention_factor=0.1 * math.log(scaling.factor) + 1.0,
        )
        context_length = max(context_length, int(yarn.factor * yarn.original_context))
    if context_length > _MOST_POSITIONS:
        raise SamplingError(
            f"the context would be {context_length} tokens where at most {_MOST_POSITIONS} are "
            "supported; choose a smaller factor."
        )
    scaled = replace(rope, yarn=yarn, long_prompt=None)
    model = replace(manifest.model, rope=scaled, context_length=context_length)
    return replace(manifest, model=model)


def make_tables(manifest: Manifest) -> dict[str, npt.NDArray[np.floating]]:
    """Compute the tables of a folder's graph for the rotary settings in a manifest, by name.

    Args:
        manifest: the result of `scale_model`.

    Raises:
        FolderError: the folder does not list its tables.
    """
    rope, length = manifest.model.rope, manifest.model.context_length
    stored = {entry.name: entry for entry in manifest.tensors}
    assert rope is not None
    if all(name in stored for name in WHOLE_TABLES):
        tables = dict(zip(WHOLE_TABLES, whole_tables(rope, length), strict=True))
    elif all(name in stored for name in (*COARSE_TABLES, *FINE_TABLES)):
        tables = factored_tables(rope, length, stored[FINE_TABLES[0]].shape[0])
    else:
        raise FolderError(
            "the manifest lists no rotation tables, so rope scaling cannot replace them; "
            "export the checkpoint again."
        )
    return {name: table.astype(_read_dtype(stored[name])) for name, table in tables.items()}


def _read_dtype(entry: TensorEntry) -> str:
    size_bytes = entry.size_bytes // math.prod(entry.shape)
    return "float16" if size_bytes == 2 else "float32"


def whole_tables(rope: RopeEntry, length: int) -> tuple[Table, Table]:
    """Compute cosines and sines of the positions 0 ... length - 1, each [length, R / 2]."""
    angles = np.outer(np.arange(length, dtype=np.float32), find_frequencies(rope))
    scale = np.float32(1.0 if rope.yarn is None else rope.yarn.attention_factor)
    return np.cos(angles) * scale, np.sin(angles) * scale


def factored_tables(rope: RopeEntry, length: int, step: int) -> dict[str, Table]:
    """Compute tables of every `step`-th position and of the positions below `step`.

    The graph combines them: the angle of a position is a sum of two angles. Their own angles are
    exact.
    """
    frequencies = find_frequencies(rope).astype(np.float64)
    tables: dict[str, Table] = {}
    scale = 1.0 if rope.yarn is None else rope.yarn.attention_factor
    coarse = -(-length // step)
    for names, count, distance, factor in (
        (COARSE_TABLES, coarse, step, scale),
        (FINE_TABLES, step, 1, 1.0),
    ):
        angles = np.outer(distance * np.arange(count, dtype=np.float64), frequencies)
        for name, values in zip(names, (np.cos(angles), np.sin(angles)), strict=True):
            tables[name] = (factor * values).astype(np.float32)
    return tables


def find_frequencies(rope: RopeEntry) -> Table:
    """Compute the radians per position of each pair, [R / 2] float32."""
    periods = np.array(rope.periods, np.float32)
    frequencies: Table = (1.0 / periods).astype(np.float32)
    if rope.yarn is None:
        return frequencies
    slowed = (1.0 / (np.float32(rope.yarn.factor) * periods)).astype(np.float32)
    kept = 1 - _slowed_part(rope, rope.yarn)
    mixed: Table = (slowed * (1 - kept) + frequencies * kept).astype(np.float32)
    return mixed


def _slowed_part(rope: RopeEntry, yarn: Yarn) -> Table:
    """Return YaRN's ramp: 0 for pairs that rotate often in the original context, 1 for slow."""
    first, last = (_find_pair(rope, yarn, turns) for turns in (yarn.beta_fast, yarn.beta_slow))
    if yarn.is_truncated:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rope.rotary_dim - 1)
    if first == last:
        last += 0.001
    pairs = np.arange(len(rope.periods), dtype=np.float32)
    ramp = (pairs - np.float32(first)) / np.float32(last - first)
    part: Table = np.clip(ramp, 0, 1).astype(np.float32)
    return part


def _find_pair(rope: RopeEntry, yarn: Yarn, turns: float) -> float:
    """Return the (fractional) index of the pair with `turns` rotations in the original context."""
    ratio = yarn.original_context / (turns * 2 * math.pi)
    return rope.rotary_dim * math.log(ratio) / (2 * math.log(rope.theta))
