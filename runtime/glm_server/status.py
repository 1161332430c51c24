"""`GET /health` and `GET /metrics`."""

from typing import Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from glm_server.errors import ApiError
from glm_server.schema import Reply
from glm_server.services import services_of

router = APIRouter()


class Health(Reply):
    """The server answers requests."""

    status: Literal["ok"] = "ok"


@router.head("/health", include_in_schema=False)
@router.get("/health")
async def check_health(http: HttpRequest) -> Health:
    """Say whether the server answers requests; 503 while it loads."""
    if not http.app.state.is_ready:
        raise ApiError(503, "the server is loading its models; try again later.")
    return Health()


@router.get("/metrics", response_class=PlainTextResponse)
async def read_metrics(http: HttpRequest) -> Response:
    """Return the metrics in Prometheus's text format."""
    return Response(services_of(http).metrics.to_text(), media_type=CONTENT_TYPE_LATEST)
