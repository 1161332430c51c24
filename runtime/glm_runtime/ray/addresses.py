"""Addresses of fsspec, such as `s3://bucket/in`. Their file systems raise errors of any class."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from glm_runtime.errors import GlmRuntimeError, describe_os_error, first_line
from glm_runtime.ray.connection import import_ray


def is_address(text: str) -> bool:
    """Return whether a text is an fsspec address and not a path."""
    return "://" in text


def open_address(text: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address or path, and the path in it."""
    storage, path = import_ray("fsspec.core").url_to_fs(text)
    return storage, str(path).rstrip("/") or str(path)


@contextmanager
def explain_errors(explain: Callable[[str], GlmRuntimeError]) -> Iterator[None]:
    """Turn errors of a file system into one of ours.

    Each service's library has errors of its own: botocore's for S3, paramiko's for SFTP.

    Args:
        explain: makes the error of a reason in one line.
    """
    try:
        yield
    except (GlmRuntimeError, MemoryError):
        raise
    except Exception as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else first_line(error)
        raise explain(reason.rstrip(".")) from error
