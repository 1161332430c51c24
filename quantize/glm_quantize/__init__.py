"""Weight quantization: float weights to integer codes.

Three choices are independent. A *method* chooses the codes (`methods/`). A *scheme* sets the bits,
the block size and whether there are zero points (`scheme.py`). A *packing* lays out the bytes for a
kernel (`packing.py`). This package does not know ONNX graphs or checkpoints. It uses numpy; only
the calibrated methods import PyTorch, when they are called.
"""

from glm_quantize.codes import FloatArray, QuantizedRows, dequantize, round_scales
from glm_quantize.errors import QuantizationError, SchemeError, SingularStatisticsError
from glm_quantize.methods import METHODS, Method, RowQuantizer, find_method
from glm_quantize.packing import PackedRows, pack_rows, unpack_rows
from glm_quantize.scheme import SUPPORTED_BITS, SUPPORTED_BLOCK_SIZES, Scheme
from glm_quantize.statistics import InputStatistics

__all__ = [
    "METHODS",
    "SUPPORTED_BITS",
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
__version__ = "0.1.0"  # the same as glm_export's
