"""Float weights to integer codes, in plain numpy.

Three separate axes: a *method* chooses the codes (`methods/`), a *scheme* says how many bits,
which block size and whether zero points exist (`scheme.py`), a *packing* lays the bytes out for
a kernel (`packing.py`). This package knows nothing of ONNX graphs, checkpoints or torch.
"""

from glm_quantize.codes import FloatArray, QuantizedRows, dequantize
from glm_quantize.errors import QuantizationError, SchemeError
from glm_quantize.methods import METHODS, find_method
from glm_quantize.packing import PackedRows, pack_rows, unpack_rows
from glm_quantize.scheme import Scheme

__all__ = [
    "METHODS",
    "FloatArray",
    "PackedRows",
    "QuantizationError",
    "QuantizedRows",
    "Scheme",
    "SchemeError",
    "dequantize",
    "find_method",
    "pack_rows",
    "unpack_rows",
]
