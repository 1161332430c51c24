"""The connection to Ray, which is imported here and nowhere else before it is used."""

import importlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from glm_runtime.errors import MissingDependencyError, RayError, first_line

_CONNECT_SECONDS = 5.0
_SLOW_WORDS = "timed out during startup"
# HTTP/2 begins with a preface and a frame of settings, here an empty one (RFC 9113, 3.4 and 4.1).
_HEADER_BYTES = 9
_SETTINGS = b"\x04"  # the type of the frame, after three bytes of its length
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
# How Ray refuses a program that has another token or none.
_TOKEN_WORDS = ("AuthenticationError", "InvalidAuthToken", "Token authentication")


def import_ray(module: str = "ray") -> Any:
    """Import Ray or one of its modules.

    Raises:
        MissingDependencyError: Ray, or what Ray Data needs, is not installed.
    """
    try:
        return _import(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"Ray cannot be imported ({first_line(error)}), which jobs on several processes or "
            "machines need; install it with `pip install 'ray[data]'`, or use `glm-run generate "
            "--prompts` on this machine."
        ) from error


def _import(module: str) -> ModuleType:
    for name in (module, "ray.data"):
        importlib.import_module(name)
    return importlib.import_module(module)


@contextmanager
def connect(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start Ray on this machine; yield the module `ray`.

    A connection that exists already is used, and stays.

    Args:
        address: `HOST:PORT` of a cluster's head, or `auto`; `None` starts Ray here, and stops it at
            the end.

    Raises:
        MissingDependencyError: Ray is not installed.
        RayError: the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray starts on this machine
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    if address is not None:
        _check_address(address)
    try:
        _start(ray, address)
    except Exception as error:  # Ray raises bare ones, too
        if any(word in str(error) for word in _TOKEN_WORDS):
            raise RayError(
                f"the Ray cluster at {address} takes only programs with its token; set "
                "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN as on the cluster's head, whose token "
                "`ray get-auth-token` prints."
            ) from error
        if address is None:
            raise RayError(
                f"Ray does not start on this machine ({first_line(error)}); see the logs in "
                "/tmp/ray, or give --ray the address of a cluster."
            ) from error
        raise _explain_address(address, first_line(error)) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, address: str | None) -> None:
    for is_last in (False, True):
        try:
            ray.init(
                address=address or "local",
                include_dashboard=None if address else False,
                log_to_driver=False,
                logging_level="error",
            )
        except Exception as error:
            # Ray gives itself 30 seconds, which a first start on a busy machine can exceed.
            if is_last or _SLOW_WORDS not in str(error):
                raise
        else:
            return


def _check_address(address: str) -> None:
    """Try the port first, since Ray itself waits for minutes.

    Raises:
        RayError: nothing listens there, or something else than Ray, or the address is Ray Client's.
    """
    if "://" in address:
        raise RayError(
            f"{address} is an address of Ray Client, which does not carry jobs of this kind; start "
            "the command on a machine of the cluster, or with `ray job submit`, and give HOST:PORT."
        )
    host, separator, port = address.rpartition(":")
    if not separator:
        return  # `auto`, which Ray looks up
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as stream:
            _require_grpc(stream)
    except (OSError, ValueError, OverflowError) as error:
        raise _explain_address(address, first_line(error)) from error


def _require_grpc(stream: socket.socket) -> None:
    """Greet a server as HTTP/2 asks, which gRPC and so Ray speaks.

    Raises:
        OSError: it answers in another way, or not at all.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    stream.sendall(_GREETING)
    with stream.makefile("rb") as answer:
        if answer.read(_HEADER_BYTES)[3:4] != _SETTINGS:
            raise OSError("what listens there does not speak gRPC")


def _explain_address(address: str, reason: str) -> RayError:
    return RayError(
        f"no Ray cluster answers at {address} ({reason.rstrip('.')}); check the address and that "
        "`ray start --head` runs there, or leave it out to use this machine."
    )
