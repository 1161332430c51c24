"""The errors of the runtime, one class for each case that a caller may want to catch.

Every message is one sentence that says what was found, what was expected, and what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST_REASON = 300  # characters; the words may be a template's or a file's


class GlmRuntimeError(Exception):
    """Base class of the runtime's errors."""


class FolderError(GlmRuntimeError):
    """The folder differs from its manifest, or is not an exported folder."""


class FormatVersionError(FolderError):
    """The folder has a newer format than this runtime reads."""


class PromptError(GlmRuntimeError):
    """The prompt is empty or too long, or the chat template refuses it."""


class HostileTemplateError(PromptError):
    """The chat template accesses Python's internals, or takes too much time or memory."""


class SamplingError(GlmRuntimeError):
    """A setting is outside its range."""


class GrammarError(GlmRuntimeError):
    """A JSON schema, regular expression or grammar is not valid."""


class GenerationError(GlmRuntimeError):
    """ONNX Runtime failed, or no token can be chosen from the logits."""


class GrammarStopError(GenerationError, GrammarError):
    """A valid grammar ended an answer: it allows no token, or became too complex."""


class SessionBusyError(GlmRuntimeError):
    """The session is used by another thread at this moment."""


class QueueFullError(GlmRuntimeError):
    """As many requests wait as are allowed."""


class AnswerCancelledError(GlmRuntimeError):
    """The answer was cancelled, or its engine was closed before it was complete."""


class EngineClosedError(GlmRuntimeError):
    """The engine takes no requests any more."""


class DeviceError(GlmRuntimeError):
    """The requested device is not available, or cannot run the model."""


class HubError(GlmRuntimeError):
    """A model of the Hugging Face Hub cannot be downloaded or uploaded."""


class RayError(GlmRuntimeError):
    """A Ray cluster cannot be reached, or its workers cannot do their work."""


class MissingDependencyError(GlmRuntimeError):
    """A package that is needed is not installed."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise a RuntimeError where a library in Rust panics; its own exception is no `Exception`.

    Raises:
        RuntimeError: with the first line of the panic's message.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise RuntimeError(first_line(error)) from error


def is_panic(error: BaseException) -> bool:
    """Return whether an exception is a panic of a library in Rust, whose class is not public."""
    return type(error).__name__ == "PanicException"


def first_line(error: BaseException) -> str:
    """Return the first line of another package's error, to be put into a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else type(error).__name__


def describe_os_error(error: OSError) -> str:
    """Return the system's reason without its number and file name, for a sentence with the name."""
    return error.strerror or first_line(error)


def to_printable(text: str) -> str:
    """Replace characters that cannot be printed, so that a text cannot affect a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
