"""What this room needs of a `Model`, which a later room makes."""

from typing import Protocol

from glm_runtime.answering.settings import GenerationSettings
from glm_runtime.folder.manifest import Manifest
from glm_runtime.graph.inference import OpenGraph
from glm_runtime.text.tokenizer import Tokenizer


class LoadedModel(Protocol):
    """A folder with its open graph."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of the folder."""

    @property
    def graph(self) -> OpenGraph:
        """The loaded graph."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer."""

    @property
    def default_settings(self) -> GenerationSettings:
        """The settings that the folder recommends."""
