"""What can go wrong in the runtime, one class for each thing a caller may want to catch.

Every message is one sentence with three parts: what was found, what was expected, what to do.
"""


class GlmRuntimeError(Exception):
    """Root of every error the runtime raises on purpose."""


class FolderError(GlmRuntimeError):
    """The folder is not what its manifest promises, or is no exported folder at all."""


class FormatVersionError(FolderError):
    """The folder was written by a newer glm-export than this runtime understands."""


class PromptError(GlmRuntimeError):
    """The prompt is empty, too long, or the chat template refuses it."""


class HostileTemplateError(PromptError):
    """The chat template reaches for Python's insides, or for more time or memory than any needs."""


class SamplingError(GlmRuntimeError):
    """A sampling or length setting is outside its range."""


class GrammarError(GlmRuntimeError):
    """A schema, pattern or grammar is not valid."""


class GenerationError(GlmRuntimeError):
    """The model produced something no token can be chosen from."""


class DeviceError(GlmRuntimeError):
    """The device asked for is not offered here, or refused to run the model."""


class MissingDependencyError(GlmRuntimeError):
    """A package that this command needs is not installed."""


def first_line(error: BaseException) -> str:
    """What an error of another package says, for the middle of a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
