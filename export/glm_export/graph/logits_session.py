"""Runs an exported graph on whole windows of tokens, for verification and evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from glm_export.errors import MissingPackageError, OutputError
from glm_export.graph.observed_graph import ObservedGraph
from glm_export.graph.trace import NUM_LOGITS
from glm_export.packages import require_onnxruntime
from glm_runtime.arrays import TokenArray
from glm_runtime.errors import MissingDependencyError
from glm_runtime.folder.manifest import MODEL_NAME
from glm_runtime.graph.inference import import_onnxruntime

# Option that sets the folder of the weights if the graph is passed as bytes.
# Source: ONNX Runtime's onnxruntime_session_options_config_keys.h.
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"

CACHE_DTYPES: Mapping[str, npt.DTypeLike] = MappingProxyType(
    {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(int8)": "i1"}
)


class GraphSession:
    """An ONNX Runtime session of a folder's `model.onnx` on the CPU.

    Args:
        folder: the exported folder.
        graph: graph to run instead of `model.onnx`, with the folder's weights.

    Raises:
        MissingPackageError: onnxruntime cannot be imported.
        OutputError: ONNX Runtime cannot load the graph, for example for lack of memory.
    """

    def __init__(self, folder: Path, graph: ObservedGraph | None = None) -> None:
        require_onnxruntime()
        try:
            onnxruntime = import_onnxruntime()
        except MissingDependencyError as error:
            raise MissingPackageError(str(error)) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # no warnings that logits are longer than declared
        model: str | bytes = str(folder / MODEL_NAME)
        if graph is not None:
            model = graph.content
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        providers = ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:
            raise OutputError(  # an OutputError keeps the finished work
                f"ONNX Runtime {onnxruntime.__version__} cannot load the graph ({error}); "
                "free memory, or install the version that glm-export was tested with."
            ) from error
        self._state_names = () if graph is None else graph.state_names
        self._caches = [i for i in self._session.get_inputs() if i.name.startswith("past_key")]

    def compute_logits(self, input_ids: TokenArray) -> npt.NDArray[np.float32]:
        """Compute the logits of every position.

        Args:
            input_ids: [B, S] without padding or past.

        Returns:
            Logits [B, S, V] float32.

        Raises:
            OutputError: ONNX Runtime fails, for example for lack of memory.
        """
        return self._run(["logits"], input_ids)[0]

    def compute_states(
        self, input_ids: TokenArray
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """Compute logits [B, S, V] and the observed states, each [B, S, C], all float32."""
        logits, *states = self._run(["logits", *self._state_names], input_ids)
        return logits, states

    def _run(self, names: Sequence[str], input_ids: TokenArray) -> list[npt.NDArray[np.float32]]:
        batch, length = input_ids.shape
        feeds: dict[str, npt.NDArray[np.generic]] = {
            "input_ids": input_ids,
            "attention_mask": np.ones_like(input_ids),
            NUM_LOGITS: np.array([length], dtype=np.int64),
        }
        for cache in self._caches:
            shape = (batch, cache.shape[1], 0, cache.shape[3])
            feeds[cache.name] = np.zeros(shape, CACHE_DTYPES[cache.type])
        try:
            values: list[npt.NDArray[np.generic]] = self._session.run(names, feeds)
        except Exception as error:  # its error classes have no other common base
            raise OutputError(
                f"ONNX Runtime fails on {batch} x {length} tokens ({error}); "
                "free memory, or try the version that glm-export was tested with."
            ) from error
        return [value.astype(np.float32, copy=False) for value in values]
