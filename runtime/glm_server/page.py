"""The chat page: `GET /` and `GET /page/...`.

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
_INDEX = "index.html"
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
_NOT_BUILT = (
    "The chat page is not built; run `make page` in the clone of glm-export, which needs Node 20 "
    "or later, and load this page again.\n"
)

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def read_page(http: Request) -> Response:
    """Return the page."""
    if not (PAGE_FILES / _INDEX).is_file():
        return PlainTextResponse(_NOT_BUILT, 404, _HEADERS)
    return _respond(_INDEX, http)


@router.api_route("/page/{name:path}", methods=["GET", "HEAD"])
async def read_page_file(name: str, http: Request) -> Response:
    """Return a file that the page uses."""
    return _respond(name, http)


def _respond(name: str, http: Request) -> Response:
    if name not in _list_files():
        return PlainTextResponse("There is no such file of the page.\n", 404, _HEADERS)
    content = (PAGE_FILES / name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "ETag": tag}
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
