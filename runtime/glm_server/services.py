"""What the endpoints of one application share."""

from dataclasses import dataclass
from typing import cast

from fastapi import Request

from glm_server.metrics import Metrics
from glm_server.operator_tools import OperatorTools
from glm_server.settings import ServerSettings
from glm_server.store import ModelStore


@dataclass(frozen=True)
class Services:
    """What the endpoints of one application share.

    Attributes:
        settings: settings of the server.
        store: its models.
        metrics: its counters.
        tools: tools of the operator's MCP servers; `None` if there are none.
    """

    settings: ServerSettings
    store: ModelStore
    metrics: Metrics
    tools: OperatorTools | None = None


def services_of(http: Request) -> Services:
    """Return what the application of a request shares."""
    return cast("Services", http.app.state.services)
