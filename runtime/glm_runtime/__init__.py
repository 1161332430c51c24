"""Folders of ONNX to tokens: what glm-export writes, answered without PyTorch.

Reading order: manifest, tokenizer, chat_template, inference, kv_cache, decoding, sampler, answer,
generation, session, model, conversation.
"""

from glm_runtime.batch import BatchPiece
from glm_runtime.beam_search import Beam, BeamSettings
from glm_runtime.chat_messages import ChatOptions
from glm_runtime.conversation import Conversation
from glm_runtime.errors import (
    DeviceError,
    FolderError,
    FormatVersionError,
    GenerationError,
    GlmRuntimeError,
    GrammarError,
    MissingDependencyError,
    PromptError,
    SamplingError,
)
from glm_runtime.generation import Request
from glm_runtime.logprobs import TokenLogprobs
from glm_runtime.model import Model, load
from glm_runtime.prepared import PreparedModels
from glm_runtime.sampling import DrySettings, SamplingSettings
from glm_runtime.session import Session
from glm_runtime.settings import GenerationSettings, Piece
from glm_runtime.structured import Grammar
from glm_runtime.tool_calls import ToolCall

__all__ = [
    "BatchPiece",
    "Beam",
    "BeamSettings",
    "ChatOptions",
    "Conversation",
    "DeviceError",
    "DrySettings",
    "FolderError",
    "FormatVersionError",
    "GenerationError",
    "GenerationSettings",
    "GlmRuntimeError",
    "Grammar",
    "GrammarError",
    "MissingDependencyError",
    "Model",
    "Piece",
    "PreparedModels",
    "PromptError",
    "Request",
    "SamplingError",
    "SamplingSettings",
    "Session",
    "TokenLogprobs",
    "ToolCall",
    "load",
]
