"""Real MCP servers, over stdio and HTTP: whatever they do is an observation."""

import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
import psutil
import pytest

from glm_agents.configuration import AgentConfiguration, HttpServer, StdioServer
from glm_agents.errors import AgentError
from glm_agents.limits import MAX_DESCRIPTION_CHARACTERS, AgentLimits
from glm_agents.observation import Observation
from glm_agents.offers import Declared, check_tools
from glm_agents.toolbox import Toolbox, open_toolbox
from support.commands import start
from support.mcp_servers import POEM
from support.refusals import assert_sentence

PROGRAM = Path(__file__).parents[1] / "support" / "mcp_servers.py"
LIMITS = AgentLimits(start_seconds=60, call_seconds=60)
HASTY = AgentLimits(start_seconds=60, call_seconds=2)
VERSE = ("get_verse", '{"reference": "Micah 6:8"}')
Result = TypeVar("Result")
Work = Callable[[Toolbox], Awaitable[Result]]


def stdio(name: str, label: str = "") -> StdioServer:
    return StdioServer(label or name, sys.executable, (str(PROGRAM), name))


def script(code: str, label: str = "script") -> StdioServer:
    return StdioServer(label, sys.executable, ("-c", code))


def work(
    servers: Sequence[StdioServer | HttpServer], do: Work[Result], limits: AgentLimits = LIMITS
) -> Result:
    async def run() -> Result:
        async with open_toolbox(AgentConfiguration(tuple(servers)), limits) as toolbox:
            return await do(toolbox)

    return anyio.run(run)


def call(server: StdioServer | HttpServer, name: str, arguments: str = "{}") -> Observation:
    return work([server], lambda box: box.call(name, arguments, 60))


@pytest.fixture(scope="module")
def http_bible() -> Iterator[HttpServer]:
    """The server of verses over streamable HTTP, in a process of its own."""
    yield from serve("bible")


@pytest.fixture(scope="module")
def http_odd() -> Iterator[HttpServer]:
    yield from serve("odd")


def serve(name: str) -> Iterator[HttpServer]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = start([sys.executable, str(PROGRAM), name, str(port)])
    try:
        while process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield HttpServer(name, f"http://127.0.0.1:{port}/mcp")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["stdio", "http"])
def bible(request: pytest.FixtureRequest) -> StdioServer | HttpServer:
    if request.param == "stdio":
        return stdio("bible")
    found: HttpServer = request.getfixturevalue("http_bible")
    return found


def test_tools_are_listed_and_called(bible: StdioServer | HttpServer) -> None:
    async def look(box: Toolbox) -> list[Any]:
        assert not box.notes
        verse = await box.call(*VERSE, 60)
        poem = await box.call("get_poem", '{"title": "静夜思"}', 60)
        return [[offer.describe() for offer in box.offers], verse, poem]

    tools, verse, poem = work([bible], look)
    assert [tool["function"]["name"] for tool in tools] == ["get_verse", "get_poem"]
    assert tools[0]["function"]["description"] == "Look up a Bible verse."
    assert tools[0]["function"]["parameters"]["required"] == ["reference"]
    assert verse == Observation("He hath shewed thee, O man, what is good.")
    assert poem == Observation(POEM)


def test_bad_arguments_are_observations(bible: StdioServer | HttpServer) -> None:
    async def try_all(box: Toolbox) -> list[Observation]:
        given = ["", "[]", "{", '{"reference": 5}', "{}", '{"reference": "None 1:1"}', "[" * 10**5]
        return [await box.call("get_verse", one, 60) for one in given]

    found = work([bible], try_all)
    assert all(one.is_error for one in found)
    assert [one.text.startswith("Error: the arguments are no JSON object") for one in found] == [
        True, True, True, False, False, False, True,
    ]  # fmt: skip
    assert "reference" in found[3].text and "reference" in found[4].text


def test_an_unknown_tool_is_an_observation(bible: StdioServer | HttpServer) -> None:
    found = call(bible, "delete_all")
    assert found.is_error
    assert found.text == (
        "Error: there is no tool 'delete_all'; the tools are get_verse, get_poem."
    )


def test_names_of_several_servers_are_kept_apart() -> None:
    async def look(box: Toolbox) -> list[str]:
        names = [offer.name for offer in box.offers]
        assert len(set(names)) == len(names)
        texts = [(await box.call(f"{one}.get_verse", VERSE[1], 60)).text for one in ("a", "odd")]
        poem = await box.call("get_poem", '{"title": "x"}', 60)
        return [*texts, poem.text]

    texts = work([stdio("bible", "a"), stdio("odd")], look)
    assert texts == ["He hath shewed thee, O man, what is good.", "of the odd server", POEM]


def test_a_server_that_hangs(http_odd: HttpServer) -> None:
    """In a task that can be cancelled, and in one that blocks everything."""

    async def try_all(box: Toolbox) -> list[Observation]:
        hanging = [await box.call(name, "{}", 60) for name in ("hang", "freeze")]
        return [*hanging, await box.call("hang", "{}", 0.5)]

    for server in (stdio("odd"), http_odd):
        found = work([server], try_all, HASTY)
        assert [one.text for one in found] == [
            "Error: hang of odd: it gave no answer in 2 seconds.",
            "Error: freeze of odd: it gave no answer in 2 seconds.",
            "Error: hang of odd: it gave no answer in 0.5 seconds.",
        ]


def test_a_server_that_dies_in_a_call_is_started_again() -> None:
    async def die(box: Toolbox) -> list[Observation]:
        first = await box.call("count_calls", "{}", 60)
        died = [await box.call("die", "{}", 60) for _ in range(2)]
        return [first, *died, await box.call("count_calls", "{}", 60)]

    first, *died, last = work([stdio("odd")], die)
    assert [one.text for one in died] == ["Error: die of odd: the server ended."] * 2
    assert (first.text, last.text) == ("1", "1")  # a new process counts anew


def test_an_http_server_that_dies_in_a_call() -> None:
    servers = serve("odd")
    server = next(servers)

    async def die(box: Toolbox) -> list[Observation]:
        return [await box.call(name, "{}", 30) for name in ("die", "count_calls")]

    found = work([server], die)
    next(servers, None)
    assert all(one.is_error for one in found)


def test_ten_megabytes_are_cut(http_odd: HttpServer) -> None:
    found = call(stdio("odd"), "flood")
    assert not found.is_error
    assert found.text == (
        "y" * 16_384 + "\n[cut: these are the first 16384 of 10000000 characters]"
    )
    assert len(call(http_odd, "flood").text) < 17_000


def test_errors_of_a_tool_and_pictures_are_observations() -> None:
    found = call(stdio("odd"), "fail")
    assert found.is_error and "no luck today" in found.text
    assert call(stdio("odd"), "draw").text == "a picture:\n[image that cannot be shown: image/png]"


def test_a_thousand_tools() -> None:
    async def look(box: Toolbox) -> tuple[list[str], list[str], int]:
        longest = max(len(offer.description) for offer in box.offers)
        return [offer.name for offer in box.offers], list(box.notes), longest

    names, notes, longest = work([stdio("many")], look)
    assert len(names) == 128
    assert names[:4] == ["tool_0", "tool_1", "tool_2", "tool_7"]
    assert longest < MAX_DESCRIPTION_CHARACTERS + 100
    assert "deeper than 16 levels" in notes[0] and "'tool_3'" in notes[0]
    assert "its schema has" in notes[1] and "'tool_4'" in notes[1]
    assert "two\\nlines" in notes[2] and "other characters" in notes[2]
    assert "another tool of the server" in notes[3]
    assert notes[4].startswith("there are 996 tools, of which the first 128 are offered")


def test_a_regular_expression_of_a_server_is_never_run() -> None:
    """The SDK checks results against the server's schema; this one would take years."""
    assert call(stdio("hostile"), "slow") == Observation("done")


def test_servers_that_cannot_be_used_are_left_out() -> None:
    broken = [
        StdioServer("absent", "no-such-program"),
        script("import sys; sys.exit('no key is set')", "ends"),
        script("import time; time.sleep(600)", "silent"),
        script("while True: print('nonsense')", "babbling"),
        HttpServer("nobody", "http://127.0.0.1:9/mcp"),
    ]

    async def look(box: Toolbox) -> list[Any]:
        return [list(box.notes), await box.call(*VERSE, 60)]

    limits = AgentLimits(start_seconds=15)
    notes, verse = work([*broken, stdio("bible")], look, limits)
    assert verse.text == "He hath shewed thee, O man, what is good."
    reasons = [
        "absent cannot be used (there is no program no-such-program); check",
        "ends cannot be used (the program ended at its start: no key is set)",
        "silent cannot be used (it gave no answer in 15 seconds)",
        "babbling cannot be used (",
        "nobody cannot be used (",
    ]
    for note, reason in zip(notes, reasons, strict=True):
        assert_sentence(note, reason)


def test_without_any_tool_there_is_no_loop() -> None:
    with pytest.raises(AgentError) as caught:
        work([StdioServer("absent", "no-such-program")], lambda box: box.call("a", "{}", 1))
    assert "there is no tool to offer" in str(caught.value)
    assert "no-such-program" in str(caught.value)


def test_errors_of_the_block_are_its_own() -> None:
    """A task group makes groups of errors, which no caller expects."""

    async def fail(_box: Toolbox) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        work([stdio("bible")], fail)


def test_a_cancelled_call_leaves_the_server_usable() -> None:
    async def cancel(box: Toolbox) -> Observation:
        with anyio.move_on_after(0.5):
            await box.call("hang", "{}", 60)
        return await box.call("count_calls", "{}", 60)

    assert work([stdio("odd")], cancel).text == "1"


def test_servers_end_with_the_block() -> None:
    before = set(psutil.Process(os.getpid()).children(recursive=True))
    found: list[psutil.Process] = []

    async def look(_box: Toolbox) -> None:
        found.extend(set(psutil.Process(os.getpid()).children(recursive=True)) - before)

    work([stdio("bible"), stdio("odd")], look)
    assert len(found) >= 2
    assert psutil.wait_procs(found, 10)[1] == []


def test_what_a_server_logs_does_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import runpy, sys; print('\\x1b]0;title\\x07', file=sys.stderr); "
        "sys.argv[1:] = ['bible']; "
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"
    )
    assert not call(script(code), *VERSE).is_error
    assert capfd.readouterr() == ("", "")


def test_a_secret_of_the_environment_does_not_reach_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLM_SECRET", "secret")
    code = (
        "import os; from mcp.server import MCPServer; server = MCPServer('env')\n"
        "@server.tool()\ndef show() -> str:\n    return str(dict(os.environ))\n"
        "server.run('stdio')"
    )
    server = StdioServer("env", sys.executable, ("-c", code), {"GIVEN": "yes"})
    text = call(server, "show").text
    assert "secret" not in text and "'GIVEN': 'yes'" in text


def test_a_large_or_compressed_response_is_refused() -> None:
    """A server may be a stranger's; a small compressed body may expand to gigabytes."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer  # noqa: PLC0415
    from threading import Thread  # noqa: PLC0415

    class Handler(BaseHTTPRequestHandler):
        headers_sent: dict[str, str]

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            if self.path == "/compressed":
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            try:
                for _ in range(64):
                    self.wfile.write(b" " * (1 << 20))
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for path in ("large", "compressed"):
            with pytest.raises(AgentError) as caught:
                work([HttpServer(path, f"{url}/{path}")], lambda box: box.call("a", "{}", 1))
            assert "cannot be used" in str(caught.value)
        server.shutdown()


def test_a_tool_whose_arguments_are_no_object_is_left_out() -> None:
    """The grammar of a required call would have made the model write one that is no call."""
    declared = [Declared("text", "", {"type": "string"}), Declared("any", "", {})]
    offers, (note,) = check_tools("bible", declared)
    assert [offer.name for offer in offers] == ["any"]
    assert "'text' of bible is left out, because its schema is not that of an object" in note
