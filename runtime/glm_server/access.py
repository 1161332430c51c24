"""Who may use the server: API keys, and the `Host` and `Origin` of browsers.

Without a key, a web page could reach a server on the loopback address through the user's browser:
by a name that it lets point to 127.0.0.1 (DNS rebinding), or by sending a form across origins.
Therefore `Host` must be an address or a known name then, and `Origin` must be the server's own.
"""

import hmac
import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from glm_server.errors import ApiError, respond
from glm_server.settings import ServerSettings

_PAGES = frozenset({"/", "/docs", "/service_worker.js"})
_OPEN_PATHS = frozenset({"/health"})
_LOOPBACK_NAMES = frozenset({"localhost"})


class AccessCheck:
    """ASGI middleware that refuses requests which may not use the server."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._keys = [key.encode() for key in settings.api_keys]
        self._names = _LOOPBACK_NAMES | {settings.host, *settings.allowed_hosts}
        self._origins = frozenset(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with the refusal."""
        error = self._find_error(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
        else:
            await respond(error, scope["path"])(scope, receive, send)

    def _find_error(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._keys and not self._is_known_host(host):
            return ApiError(
                HTTPStatus.FORBIDDEN,
                f"the Host header is {host!r:.80} where an address or a known name is expected; "
                "start the server with --allow-host, or with an API key.",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_known_origin(origin, host):
            return ApiError(
                HTTPStatus.FORBIDDEN,
                f"pages of {origin!r:.80} may not use this server; start it with --cors-origin.",
            )
        if scope["method"] == "OPTIONS" or scope["path"] in _OPEN_PATHS or _is_page(scope["path"]):
            return None
        if self._keys and not self._has_key(headers):
            return ApiError(
                HTTPStatus.UNAUTHORIZED,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY` or as "
                "`x-api-key: KEY`.",
                code="invalid_api_key",
            )
        return None

    def _has_key(self, headers: Headers) -> bool:
        """Compare both headers with every key, each in constant time."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token.strip() if scheme.lower() == "bearer" else ""
        given = [one.encode("latin-1") for one in (bearer, headers.get("x-api-key", ""))]
        found = [hmac.compare_digest(one, key) for one in given for key in self._keys]
        return any(found)

    def _is_known_host(self, host: str) -> bool:
        name = _name_of(f"//{host}")
        if name is None:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True

    def _is_known_origin(self, origin: str, host: str) -> bool:
        if "*" in self._origins or origin in self._origins:
            return True
        return urlsplit(origin).netloc == host if _name_of(origin) is not None else False


def _is_page(path: str) -> bool:
    """Return whether a path is a file of a page, which asks for the key itself."""
    return path in _PAGES or path.startswith("/page/")


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
