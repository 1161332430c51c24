"""Names of the array types that this package passes around."""

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.int64]  # token ids, or indices into a vocabulary
FloatArray = npt.NDArray[np.floating]  # logits and scores, float32 or float16
CacheArray = npt.NDArray[np.floating | np.int8]  # keys or values in the KV cache
