"""An HTTP client for MCP servers that may be strangers: sizes are bounded."""

from collections.abc import AsyncIterator, Mapping

import httpx2

from glm_agents.limits import MAX_HTTP_BYTES

_EVENTS = "text/event-stream"
_CONNECT_SECONDS = 30.0
_READ_SECONDS = 300.0  # a stream of events may be silent


def make_http_client(headers: Mapping[str, str]) -> httpx2.AsyncClient:
    """Make a client for one server; proxies of the environment are not used.

    A response that is no stream of events has at most `MAX_HTTP_BYTES`; the SDK bounds each event
    of a stream. Compressed responses are refused, since a small one may expand to gigabytes.
    """
    return httpx2.AsyncClient(
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_SECONDS, read=_READ_SECONDS),
        transport=_BoundedTransport(),
        trust_env=False,
    )


class _BoundedTransport(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            await response.aclose()
            raise httpx2.ReadError(f"the response is compressed ({encoding})", request=request)
        if not response.headers.get("content-type", "").startswith(_EVENTS):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream, request)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._inner = inner
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self._inner:
            size += len(part)
            if size > MAX_HTTP_BYTES:
                message = f"the response is larger than {MAX_HTTP_BYTES} bytes"
                raise httpx2.ReadError(message, request=self._request)
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
