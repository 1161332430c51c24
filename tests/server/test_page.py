"""The page of the server: its headers, and the page itself in headless Chromium.

The second part needs what `tests/hosts/test_web.py` needs: Chromium, node and npm.
"""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from glm_server import page
from support import npm_packages
from support.chromium import find_chromium
from support.servers import Reply, ServerProcess, start_server

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "runtime" / "web"
KEY = "right"


@pytest.fixture(scope="module")
def built() -> Path:
    """The page, built from this clone."""
    npm_packages.install(PACKAGE)
    done = npm_packages.run(["npm", "run", "build:server"], PACKAGE)
    assert done.returncode == 0, done.stderr
    return page.PAGE_FILES


@pytest.fixture(scope="module")
def open_server(sample_folder: Path, built: Path) -> Iterator[ServerProcess]:
    models = (f"sample={sample_folder}", f"poems={sample_folder}")
    with start_server(*models, "--threads", 1, "--no-huge-pages") as found:
        yield found


@pytest.fixture(scope="module")
def locked_server(sample_folder: Path, built: Path) -> Iterator[ServerProcess]:
    options = ("--threads", 1, "--no-huge-pages", "--api-key", KEY)
    with start_server(f"sample={sample_folder}", *options) as found:
        yield found


def test_the_page_and_its_files(open_server: ServerProcess, built: Path) -> None:
    """Every file has a fixed type, and headers that let it do nothing but its work."""
    types = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
    types |= {".svg": "image/svg+xml", ".txt": "text/plain"}
    files = [path for path in built.rglob("*") if path.is_file()]
    assert len(files) > 8
    for file in files:
        reply = open_server.request(f"/page/{file.relative_to(built).as_posix()}")
        assert (reply.status, reply.body) == (HTTPStatus.OK, file.read_bytes())
        assert reply.headers["content-type"].split(";")[0] == types[file.suffix]
        check_headers(reply)
    index = open_server.request("/")
    assert index.body == (built / "index.html").read_bytes()
    check_headers(index)
    docs = open_server.request("/docs")
    assert docs.body == (built / "docs.html").read_bytes()
    check_headers(docs)
    head = open_server.request("/", method="HEAD")
    assert (head.status, head.body) == (HTTPStatus.OK, b"")


def check_headers(reply: Reply) -> None:
    policy = reply.headers["content-security-policy"].split("; ")
    wanted = {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"}
    assert wanted < set(policy)
    assert not any("unsafe" in rule or "http" in rule or "*" in rule for rule in policy)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-cache"


def test_a_file_that_did_not_change_is_not_sent_again(open_server: ServerProcess) -> None:
    tag = open_server.request("/page/page.js").headers["etag"]
    for sent in (tag, f'"other", W/{tag}', "*"):
        again = open_server.request("/page/page.js", headers={"If-None-Match": sent})
        assert (again.status, again.body) == (HTTPStatus.NOT_MODIFIED, b"")
        assert again.headers["etag"] == tag
    other = open_server.request("/page/page.js", headers={"If-None-Match": '"other"'})
    assert other.status == HTTPStatus.OK


@pytest.mark.parametrize(
    "path", ["../page.py", "%2e%2e/page.py", "..%2fpage.py", "/etc/passwd", "%00", "licenses", ""]
)
def test_nothing_else_is_served(path: str, open_server: ServerProcess) -> None:
    reply = open_server.request(f"/page/{path}")
    assert reply.status == HTTPStatus.NOT_FOUND
    assert b"import" not in reply.body


def test_the_page_asks_for_the_key_itself(locked_server: ServerProcess) -> None:
    assert locked_server.request("/").status == HTTPStatus.OK
    for path in ("/page/page.js", "/docs", "/service_worker.js"):
        assert locked_server.request(path).status == HTTPStatus.OK
    assert locked_server.request("/openapi.json").status == HTTPStatus.UNAUTHORIZED
    assert locked_server.request("/v1/models").status == HTTPStatus.UNAUTHORIZED


def test_a_clone_without_a_build_says_how_to_build(sample_folder: Path, tmp_path: Path) -> None:
    before = (
        "import pathlib, glm_server.page as page\n"
        f"page.PAGE_FILES = pathlib.Path({str(tmp_path)!r})"
    )
    with start_server(f"sample={sample_folder}", "--lazy", before=before) as server:
        replies = [server.request(path) for path in ("/", "/docs")]
    for reply in replies:
        assert reply.status == HTTPStatus.NOT_FOUND
        assert b"run `make page`" in reply.body


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["server_page", "server_safety", pytest.param("server_docs", marks=pytest.mark.exhaustive)],
)
def test_the_page_in_a_browser(
    name: str, open_server: ServerProcess, locked_server: ServerProcess
) -> None:
    variables = {
        "CHROMIUM": find_chromium(),
        "GLM_SERVER": f"{open_server.url}/",
        "GLM_KEY_SERVER": f"{locked_server.url}/",
    }
    npm_packages.run_tests(PACKAGE, name, variables)
