"""Real server processes, and requests to them as a client's library sends them."""

import json
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any

from support.commands import start_command, wait


@dataclass(frozen=True)
class ServerProcess:
    """A server that takes requests.

    Attributes:
        url: its address, without a path.
        process: the process.
        log: the lines of its stderr so far.
    """

    url: str
    process: subprocess.Popen[str]
    log: list[str]

    def request(
        self,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> "Reply":
        """Send one request; `body` is bytes, or becomes JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, given, method=method)
        try:
            with urllib.request.urlopen(request) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read())


@dataclass(frozen=True)
class Reply:
    """The response to a request."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of server-sent events, without the closing `[DONE]`."""
        lines = self.body.decode("utf-8").splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(one) for one in data if one != "[DONE]"]


@contextmanager
def start_server(*arguments: object, before: str = "") -> Iterator[ServerProcess]:
    """Run `glm-run serve` on a free port while the block runs.

    Args:
        arguments: folders and options.
        before: Python statements that the process runs first.
    """
    process = start_command("glm-run", "serve", *arguments, "--port", 0, before=before)
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    # A thread, because a full pipe would stop the server.
    reader = threading.Thread(target=log.extend, args=(process.stderr,))
    reader.start()
    try:
        url = process.stdout.readline().strip()
        if not url:
            reader.join()
        assert url, f"the server did not start: {''.join(log)}"
        yield ServerProcess(url, process, log)
    finally:
        process.terminate()
        wait(process)
        reader.join()
        process.stdout.close()
        process.stderr.close()


def open_stream(
    server: ServerProcess, body: Mapping[str, Any], path: str = "/v1/chat/completions"
) -> socket.socket:
    """Send a request by hand, and return its connection."""
    connection = connect(server)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def connect(server: ServerProcess) -> socket.socket:
    """Return a new connection to a server."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=300)


def read_status(connection: socket.socket) -> str:
    """Return the status line of the response that comes on a connection."""
    received = b""
    while b"\r\n" not in received:
        part = connection.recv(1 << 16)
        assert part, received
        received += part
    return received.partition(b"\r\n")[0].decode()
