"""The ASGI application: endpoints, errors and access together."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import glm_runtime
from glm_runtime.errors import GlmRuntimeError
from glm_runtime.progress import Progress, ignore_progress
from glm_server import page, status
from glm_server.access import AccessCheck
from glm_server.anthropic import messages
from glm_server.connections import ID_HEADERS, RequestCounter, SlowBodyCheck
from glm_server.description import describe_app
from glm_server.errors import ApiError, explain_validation, respond, translate
from glm_server.metrics import Metrics
from glm_server.openai import chat, completions, models, responses, tokens
from glm_server.operator_tools import OperatorTools
from glm_server.schema import require_json
from glm_server.services import Services
from glm_server.settings import ServerSettings
from glm_server.store import ModelStore

_LOG = logging.getLogger("glm_server")
_ENDPOINTS = (page, status, models, chat, completions, responses, messages, tokens)


def create_app(
    folders: Mapping[str, Path],
    settings: ServerSettings,
    *,
    is_lazy: bool = False,
    progress: Progress = ignore_progress,
) -> FastAPI:
    """Make the application, which loads its models when it starts.

    It takes requests while it loads; they wait, and `GET /health` says 503. The task that loads is
    `app.state.loading`.

    Args:
        folders: exported folders by the ids that requests name; the first is the default.
        settings: settings of the server.
        is_lazy: whether each model is loaded at its first use instead.
        progress: called with (stage, done, total) while files are verified.

    Raises:
        FolderError: a folder is not an exported folder.
    """
    store = ModelStore(folders, settings, progress)
    tools = None
    if settings.agents is not None:
        tools = OperatorTools(settings.agents, settings.agent_limits)
    services = Services(settings, store, Metrics(lambda: store.loaded), tools)
    app = FastAPI(
        title="glm-run serve",
        version=glm_runtime.__version__,
        summary="GLM models on ONNX Runtime, with the interfaces of OpenAI and Anthropic.",
        lifespan=_make_lifespan(services, is_lazy=is_lazy),
        dependencies=[Depends(require_json)],
        docs_url=None,  # page.py has a page that loads nothing from other servers
        redoc_url=None,
    )
    app.state.services = services
    app.state.is_ready = False
    for module in _ENDPOINTS:
        app.include_router(module.router)
    app.openapi = lambda: describe_app(app)  # type: ignore[method-assign]  # FastAPI's own way
    _handle_errors(app)
    app.add_middleware(SlowBodyCheck)
    app.add_middleware(AccessCheck, settings=settings)
    app.add_middleware(RequestCounter, metrics=services.metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=ID_HEADERS,
        )
    return app


def _make_lifespan(
    services: Services, *, is_lazy: bool
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    store, tools = services.store, services.tools

    @contextlib.asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        opened = contextlib.nullcontext() if tools is None else tools.run()
        async with opened, run_models(app):
            yield

    @contextlib.asynccontextmanager
    async def run_models(app: FastAPI) -> AsyncIterator[None]:
        async def load() -> None:
            if tools is not None:
                await tools.wait()
            if not is_lazy:
                await store.load_all()
            app.state.is_ready = True

        app.state.loading = asyncio.create_task(load())
        unloading = asyncio.create_task(store.unload_idle())
        try:
            yield
        finally:
            app.state.is_ready = False
            for task in (app.state.loading, unloading):
                task.cancel()
            await asyncio.gather(app.state.loading, unloading, return_exceptions=True)
            await store.close()

    return run


def _handle_errors(app: FastAPI) -> None:
    """Answer every error in the shape of the interface that its path belongs to."""

    @app.exception_handler(ApiError)
    async def refuse(request: Request, error: ApiError) -> Response:
        return respond(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def refuse_body(request: Request, error: RequestValidationError) -> Response:
        return respond(explain_validation(error.errors(), error.body), request.url.path)

    @app.exception_handler(GlmRuntimeError)
    async def refuse_question(request: Request, error: GlmRuntimeError) -> Response:
        return respond(translate(error), request.url.path)

    @app.exception_handler(HTTPException)
    async def refuse_http(request: Request, error: HTTPException) -> Response:
        found = ApiError(error.status_code, _explain_http(request, error))
        response = respond(found, request.url.path)
        response.headers.update(error.headers or {})  # such as Allow with 405
        return response

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        _LOG.error("a fault of the server in %s", request.url.path, exc_info=error)
        found = ApiError(500, "this is a fault of the server; its log says more.")
        return respond(found, request.url.path)


def _explain_http(request: Request, error: HTTPException) -> str:
    if error.status_code == 404:
        return (
            f"there is no {request.method} {request.url.path}; see /openapi.json for what there is."
        )
    if error.status_code == 405:
        return f"{request.url.path} does not take {request.method}; see /openapi.json."
    return str(error.detail)
