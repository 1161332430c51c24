"""The chat page and that of the endpoints: `GET /`, `GET /docs` and `GET /page/...`.

`make page` builds the files of `runtime/web` into `page_files`, which a wheel holds and a fresh
clone does not. The page has two filters for what a model writes; the headers here are the third
barrier: they forbid all scripts and connections but the server's own.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePath

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

PAGE_FILES = Path(__file__).parent / "page_files"
_INDEX, _DOCS = "index.html", "docs.html"
# Replaces the worker of the page with a model in the browser, if that was at this address before.
_WORKER = "service_worker.js"
# Not those of `mimetypes`, which reads the registry on Windows, where programs change them.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)
_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-cache",  # kept, and asked for again with its ETag
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Swagger UI sets HTML as text, so the page sanitizes it in its default policy.
_DOCS_HEADERS = {
    **_HEADERS,
    "Content-Security-Policy": f"{_POLICY} dompurify#swagger default",
}
_NOT_BUILT = (
    "The page is not built; run `make page` in the clone of glm-export, which needs Node 20 "
    "or later, and load this page again.\n"
)

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def read_page(http: Request) -> Response:
    """Return the page."""
    return _respond_built(_INDEX, http, _HEADERS)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def read_docs(http: Request) -> Response:
    """Return the page of the endpoints."""
    return _respond_built(_DOCS, http, _DOCS_HEADERS)


@router.api_route(f"/{_WORKER}", methods=["GET", "HEAD"])
async def read_worker(http: Request) -> Response:
    """Return the service worker that removes itself."""
    return _respond(_WORKER, http, _HEADERS)


@router.api_route("/page/{name:path}", methods=["GET", "HEAD"])
async def read_page_file(name: str, http: Request) -> Response:
    """Return a file that a page uses."""
    return _respond(name, http, _HEADERS)


def _respond_built(name: str, http: Request, headers: Mapping[str, str]) -> Response:
    if not (PAGE_FILES / name).is_file():
        return PlainTextResponse(_NOT_BUILT, 404, headers)
    return _respond(name, http, headers)


def _respond(name: str, http: Request, policy: Mapping[str, str]) -> Response:
    if name not in _list_files():
        return PlainTextResponse("There is no such file of the page.\n", 404, policy)
    content = (PAGE_FILES / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**policy, "ETag": tag}
    if {tag, "*"} & _read_tags(http.headers.get("if-none-match", "")):
        return Response(None, 304, headers)
    return Response(content, 200, headers, _TYPES[PurePath(name).suffix])


def _read_tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _list_files() -> set[str]:
    """Return the names of all files, so that no other path is ever opened."""
    return {
        path.relative_to(PAGE_FILES).as_posix()
        for path in PAGE_FILES.rglob("*")
        if path.suffix in _TYPES and path.is_file()
    }
