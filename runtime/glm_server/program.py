"""Runs the application under uvicorn until a signal ends it."""

import copy
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn
import uvicorn.config

from glm_runtime.progress import Progress, ignore_progress
from glm_server.app import create_app
from glm_server.settings import ServerSettings


class _Server(uvicorn.Server):
    """Says where it listens as soon as it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, *arguments: Any, **keywords: Any) -> None:
        await super().startup(*arguments, **keywords)
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                name = f"[{host}]" if ":" in host else host
                scheme = "https" if self.config.is_ssl else "http"
                self._announce(f"{scheme}://{name}:{port}")
                return


def run_server(
    folders: Mapping[str, Path],
    settings: ServerSettings,
    *,
    is_lazy: bool,
    tls: tuple[Path, Path] | None,
    announce: Callable[[str], None],
    progress: Progress = ignore_progress,
) -> bool:
    """Serve until SIGINT or SIGTERM; return whether the server started.

    Running answers then get `settings.grace_seconds`; new requests are refused.

    Args:
        folders: exported folders by the ids of their models.
        settings: settings of the server.
        is_lazy: whether each model is loaded at its first use.
        tls: files of certificate and private key; `None` serves without TLS.
        announce: called with the server's URL when it takes requests.
        progress: called with (stage, done, total) while models are loaded.

    Raises:
        FolderError: a folder is not an exported folder.
    """
    app = create_app(folders, settings, is_lazy=is_lazy, progress=progress)
    certificate, key = tls or (None, None)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=_log_config(),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = _Server(config, announce)
    server.run()
    return server.started


def _log_config() -> dict[str, Any]:
    """Return uvicorn's settings of logging, with warnings and errors alone, on stderr."""
    config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    for logger in config["loggers"].values():
        logger["level"] = logging.getLevelName(logging.WARNING)
    config["loggers"]["glm_server"] = {"handlers": ["default"], "level": "INFO"}
    return config
