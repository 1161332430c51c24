"""Float weights to integer codes.

Three separate axes: a *method* chooses the codes (`methods/`), a *scheme* says how many bits,
which block size and whether zero points exist (`scheme.py`), a *packing* lays the bytes out for
a kernel (`packing.py`). This package knows nothing of ONNX graphs or checkpoints; it is plain numpy
but for the calibrated methods, which load torch when they are used.
"""

from glm_quantize.codes import FloatArray, QuantizedRows, dequantize, round_scales
from glm_quantize.errors import QuantizationError, SchemeError, SingularStatisticsError
from glm_quantize.methods import METHODS, Method, RowQuantizer, find_method
from glm_quantize.packing import PackedRows, pack_rows, unpack_rows
from glm_quantize.scheme import SUPPORTED_BLOCK_SIZES, Scheme
from glm_quantize.statistics import InputStatistics

__all__ = [
    "METHODS",
    "SUPPORTED_BLOCK_SIZES",
    "FloatArray",
    "InputStatistics",
    "Method",
    "PackedRows",
    "QuantizationError",
    "QuantizedRows",
    "RowQuantizer",
    "Scheme",
    "SchemeError",
    "SingularStatisticsError",
    "dequantize",
    "find_method",
    "pack_rows",
    "round_scales",
    "unpack_rows",
]
__version__ = "0.1.0"  # as glm_export's
