"""An exported graph run for its logits, whole windows at a time. For checks, not for generation."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from glm_export.errors import MissingPackageError, VerificationError
from glm_export.packages import require_onnxruntime
from glm_export.trace import NUM_LOGITS

TokenArray = npt.NDArray[np.int64]


class GraphSession:
    """ONNX Runtime on a folder's `model.onnx`, on the CPU.

    Raises:
        MissingPackageError: onnxruntime is not installed, or not properly.
        VerificationError: ONNX Runtime refuses the graph.
    """

    def __init__(self, folder: Path) -> None:
        require_onnxruntime()
        try:
            import onnxruntime  # noqa: PLC0415 - an extra, so its absence must be sayable
        except ImportError as error:
            raise MissingPackageError(
                f"onnxruntime cannot be imported ({error}); install it again."
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # longer logits than declared warn; errors are raised
        path, providers = str(folder / "model.onnx"), ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:
            raise VerificationError(
                f"ONNX Runtime {onnxruntime.__version__} refuses the graph ({error}); "
                "install the version that glm-export was tested with."
            ) from error
        self._caches = [i for i in self._session.get_inputs() if i.name.startswith("past_key")]

    def compute_logits(self, input_ids: TokenArray) -> npt.NDArray[np.float32]:
        """Logits of every position.

        Args:
            input_ids: [B, S], no padding, no past.

        Returns:
            [B, S, V] float32.
        """
        batch, length = input_ids.shape
        feeds: dict[str, npt.NDArray[np.generic]] = {
            "input_ids": input_ids,
            "attention_mask": np.ones_like(input_ids),
            NUM_LOGITS: np.array([length], dtype=np.int64),
        }
        for cache in self._caches:
            dtype = np.float16 if cache.type == "tensor(float16)" else np.float32
            feeds[cache.name] = np.zeros((batch, cache.shape[1], 0, cache.shape[3]), dtype)
        try:
            logits: npt.NDArray[np.float32] = self._session.run(["logits"], feeds)[0]
        except Exception as error:  # its classes share no root but this
            raise VerificationError(
                f"ONNX Runtime fails on {batch} x {length} tokens ({error}); "
                "free memory, or try the version that glm-export was tested with."
            ) from error
        return logits.astype(np.float32, copy=False)
