"""`GET /v1/models` and `GET /v1/models/{id}`."""

from typing import Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest

from glm_server.schema import Reply
from glm_server.services import services_of
from glm_server.store import ModelStore

router = APIRouter()


class ModelReply(Reply):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context_length: int


class ModelList(Reply):
    """All models of this server."""

    object: Literal["list"] = "list"
    data: list[ModelReply]


@router.get("/v1/models")
async def list_models(http: HttpRequest) -> ModelList:
    """List the models of this server."""
    store = services_of(http).store
    return ModelList(data=[_describe(store, name) for name in store.created])


@router.get("/v1/models/{name:path}")
async def retrieve_model(name: str, http: HttpRequest) -> ModelReply:
    """Describe one model."""
    return _describe(services_of(http).store, name)


def _describe(store: ModelStore, name: str) -> ModelReply:
    manifest = store.find_manifest(name)
    return ModelReply(
        id=name,
        created=store.created[name],
        owned_by=manifest.source.name,
        context_length=manifest.model.context_length,
    )
