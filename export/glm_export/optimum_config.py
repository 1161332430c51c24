"""GLM-4 for Hugging Face Optimum: `optimum-cli export onnx`, and `ORTModelForCausalLM`.

Needs `optimum-onnx`; nothing else of this package imports it. `optimum-cli` finds it where
`export/optimum_plugin` is installed; a Python program calls `register()`.
"""

import functools
from typing import Any

from packaging.version import Version

try:
    from optimum.exporters.onnx.model_configs import COMMON_TEXT_GENERATION_TASKS, LlamaOnnxConfig
    from optimum.exporters.tasks import TasksManager
    from optimum.utils import NormalizedTextConfigWithGQA, is_onnxruntime_available
except ImportError as error:
    raise ImportError(
        f"Optimum's ONNX exporter cannot be imported ({error}); "
        "pip install 'optimum-onnx[onnxruntime]'."
    ) from error

MODEL_TYPES = ("glm", "glm4")


class GlmOnnxConfig(LlamaOnnxConfig):  # type: ignore[misc]
    """Inputs, outputs and examples as for Llama, with the cache's own heads and head size."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfigWithGQA
    MIN_TRANSFORMERS_VERSION = Version("4.46.0")  # the first with `glm`


@functools.cache
def register() -> None:
    """Register both model types, unless Optimum supports them already."""
    add = TasksManager.create_register("onnx")
    for model_type in MODEL_TYPES:
        add(model_type, *COMMON_TEXT_GENERATION_TASKS)(GlmOnnxConfig)
    if is_onnxruntime_available():
        _read_cache_shape_from_graph()


def _read_cache_shape_from_graph() -> None:
    """Give `ORTModelForCausalLM` the cache's heads and head size that the graph declares.

    Those of config.json are read by a list of model types that ends before `glm4`, and head_dim
    is not among them for `glm` (optimum-onnx 0.1.0; huggingface/optimum issue 2379).
    """
    from optimum.onnxruntime import ORTModelForCausalLM  # noqa: PLC0415 - slow to import

    initialize = ORTModelForCausalLM.__init__

    @functools.wraps(initialize)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        shape = self.input_shapes.get("past_key_values.0.key")
        if self.config.model_type in MODEL_TYPES and shape is not None:
            _, self.num_key_value_heads, _, self.embed_size_per_head = shape

    ORTModelForCausalLM.__init__ = wrapper
