"""Runs folders that glm-export wrote on ONNX Runtime, without PyTorch.

Reading order: manifest, tokenizer, chat_template, inference, kv_cache, decoding, sampler, answer,
generation, session, model, conversation.
"""

from glm_runtime.answering.batch import BatchPiece
from glm_runtime.answering.beam_search import Beam, BeamSettings
from glm_runtime.answering.generation import Request
from glm_runtime.answering.scoring import Score
from glm_runtime.answering.session import Session
from glm_runtime.answering.settings import GenerationSettings, Piece
from glm_runtime.conversation import Conversation
from glm_runtime.errors import (
    DeviceError,
    FolderError,
    FormatVersionError,
    GenerationError,
    GlmRuntimeError,
    GrammarError,
    HubError,
    MissingDependencyError,
    PromptError,
    SamplingError,
    SessionBusyError,
)
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.graph.rotary import RopeScaling
from glm_runtime.model import Model, load
from glm_runtime.sampling.logprobs import TokenLogprobs
from glm_runtime.sampling.settings import DrySettings, SamplingSettings
from glm_runtime.sampling.structured import Grammar
from glm_runtime.text.chat_messages import ChatOptions
from glm_runtime.text.tool_calls import ToolCall, ToolCallDelta

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
    "HubError",
    "MissingDependencyError",
    "Model",
    "Piece",
    "PreparedModels",
    "PromptError",
    "Request",
    "RopeScaling",
    "SamplingError",
    "SamplingSettings",
    "Score",
    "Session",
    "SessionBusyError",
    "TokenLogprobs",
    "ToolCall",
    "ToolCallDelta",
    "load",
]
__version__ = "0.1.0"  # the version of glm_export
