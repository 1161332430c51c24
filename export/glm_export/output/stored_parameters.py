"""Parameters read back from an exported data file, dequantized to float32."""

from pathlib import Path

import numpy as np

from glm_export.checkpoint.prequantized import restore_order
from glm_export.plan.plan import NUMPY_DTYPES, TensorPlan
from glm_quantize import FloatArray, PackedRows, dequantize, unpack_rows


def read_stored(tensor: TensorPlan, data_path: Path) -> FloatArray:
    """Read a parameter [N, C] or [N] from a data file, as float32."""
    parts = []
    for segment in tensor.segments:
        dtype = np.dtype(NUMPY_DTYPES[segment.dtype])
        count = segment.size_bytes // dtype.itemsize
        flat = np.fromfile(data_path, dtype, count, offset=segment.offset_bytes)
        parts.append(flat.reshape(segment.shape))
    if tensor.scheme is None:
        return parts[0].astype(np.float32)
    packed = PackedRows(
        parts[0].astype(np.uint8, copy=False),
        parts[1].astype(np.float32),
        parts[2].astype(np.uint8, copy=False) if parts[2:] else None,
    )
    weight = dequantize(unpack_rows(packed, tensor.scheme))
    return restore_order(weight, tensor.matrix.order if tensor.matrix else None)
