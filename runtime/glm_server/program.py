"""Runs the application under uvicorn until a signal ends it."""

import asyncio
import contextlib
import copy
import math
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvicorn
import uvicorn.config
from fastapi import FastAPI

from glm_runtime.errors import describe_os_error, first_line
from glm_runtime.progress import Progress, ignore_progress
from glm_server.app import create_app
from glm_server.errors import ServerError
from glm_server.settings import ServerSettings

_BACKLOG = 128
_LAST_SECONDS = 2  # for the last events of answers that are ended, and for calls of tools


class _Server(uvicorn.Server):
    """Says where it listens as soon as the models are loaded, and ends if one cannot be.

    When it stops, answers that take too long end with an error that their clients can read, before
    uvicorn would cancel them.
    """

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, announce: Callable[[], None], grace: float
    ) -> None:
        super().__init__(config)
        self._app = app
        self._announce = announce
        self._grace_seconds = grace
        self.failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._app.state.loading.add_done_callback(self._finish_loading)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for the ends of those that run."""
        ending = asyncio.create_task(self._end_answers())
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()

    async def _end_answers(self) -> None:
        await asyncio.sleep(self._grace_seconds)
        await self._app.state.services.store.end_answers()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the server; unlike uvicorn's, they do not end the process."""
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = {one: signal.signal(one, self.handle_exit) for one in signals}
        try:
            yield
        finally:
            for one, handler in previous.items():
                signal.signal(one, handler)

    def _finish_loading(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        self.failure = task.exception()
        if self.failure is None:
            self._announce()
        else:
            self.should_exit = True


def run_server(
    folders: Mapping[str, Path],
    settings: ServerSettings,
    *,
    is_lazy: bool,
    tls: tuple[Path, Path] | None,
    announce: Callable[[str], None],
    progress: Progress = ignore_progress,
) -> None:
    """Serve until SIGINT or SIGTERM; running answers then get `settings.grace_seconds`.

    Args:
        folders: exported folders by the ids of their models.
        settings: settings of the server.
        is_lazy: whether each model is loaded at its first use.
        tls: files of certificate and private key; `None` serves without TLS.
        announce: called with the server's URL when its models are loaded.
        progress: called with (stage, done, total) while models are loaded.

    Raises:
        FolderError: a folder is not an exported folder.
        ServerError: the address, the certificate, or a model cannot be used.
    """
    app = create_app(folders, settings, is_lazy=is_lazy, progress=progress)
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        log_config=_log_config(),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_seconds) + _LAST_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise ServerError(
            f"the certificate or its key cannot be used ({first_line(error)}); give two PEM files."
        ) from error
    with _listen(settings) as listener:
        url = _describe_address(listener, is_tls=tls is not None)
        server = _Server(config, app, lambda: announce(url), settings.grace_seconds)
        server.run([listener])
    if server.failure is not None:
        raise ServerError(str(server.failure)) from server.failure


def _listen(settings: ServerSettings) -> socket.socket:
    """Listen on the address of the settings.

    Raises:
        ServerError: the system refuses it.
    """
    host, port = settings.host, settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ServerError(
            f"the server cannot listen on {host} port {port} ({describe_os_error(error)}); choose "
            "another --host or --port."
        ) from error


def _describe_address(listener: socket.socket, *, is_tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{name}:{port}"


def _log_config() -> dict[str, Any]:
    """Return uvicorn's settings of logging, with its warnings and errors, and our own lines."""
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    for logger in config["loggers"].values():
        logger["level"] = "WARNING"
    config["formatters"]["default"] = {"format": "%(asctime)s %(message)s", "datefmt": "%H:%M:%S"}
    config["loggers"]["glm_server"] = {"handlers": ["default"], "level": "INFO"}
    return config
