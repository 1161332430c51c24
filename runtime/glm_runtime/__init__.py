"""Folders of ONNX to tokens: what glm-export writes, answered without PyTorch.

Reading order: manifest, tokenizer, chat_template, inference, kv_cache, decoding, sampler,
generation, session, model.
"""

from glm_runtime.errors import (
    DeviceError,
    FolderError,
    FormatVersionError,
    GenerationError,
    GlmRuntimeError,
    MissingDependencyError,
    PromptError,
    SamplingError,
)
from glm_runtime.generation import GenerationSettings, Piece
from glm_runtime.model import Model, load
from glm_runtime.sampling import SamplingSettings
from glm_runtime.session import Session

__all__ = [
    "DeviceError",
    "FolderError",
    "FormatVersionError",
    "GenerationError",
    "GenerationSettings",
    "GlmRuntimeError",
    "MissingDependencyError",
    "Model",
    "Piece",
    "PromptError",
    "SamplingError",
    "SamplingSettings",
    "Session",
    "load",
]
