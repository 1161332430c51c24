"""Text from stdin, always UTF-8, whatever the locale says."""

import sys
from collections.abc import Iterator

from glm_runtime.errors import PromptError


def read_text() -> str:
    """Read all of stdin, without the newline a shell puts at the end.

    Raises:
        PromptError: it is not UTF-8.
    """
    text = _decode(sys.stdin.buffer.read())
    return text.removesuffix("\n").removesuffix("\r")  # both on Windows


def read_lines() -> Iterator[str]:
    """Read stdin line by line, as the lines arrive.

    Raises:
        PromptError: a line is not UTF-8.
    """
    for line in sys.stdin.buffer:
        yield _decode(line).strip()


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"stdin is not UTF-8 where UTF-8 text is expected ({error}); convert it first."
        ) from error
