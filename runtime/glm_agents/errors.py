"""The error of this package."""

from glm_runtime.errors import GlmRuntimeError


class AgentError(GlmRuntimeError):
    """A configuration is wrong, or a tool that it asks for cannot be offered."""
