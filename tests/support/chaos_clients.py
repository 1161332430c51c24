"""Clients of a server that ask, misbehave and go away at random.

Each visit has its own random generator, so that a failure can be repeated by its number.
"""

import json
import random
import signal
import socket
import struct
import time
import urllib.parse
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from support.commands import start_python, wait
from support.servers import Reply, ServerProcess

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# A reply that takes this long on a busy machine will never come.
_HANG_SECONDS = 300.0
_NAMES = ["王维", "李白", "杜甫", "孟浩然", "李商隐", "白居易", "杜牧", "王之涣"]
_TEXT = "In the beginning God created the heaven and the earth. 床前明月光，疑是地上霜。"
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"title": {"type": "string"}}},
        },
    }
    for name in ("get_verse", "get_poem")
]
_SCHEMA = {
    "type": "object",
    "properties": {"line": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["line"],
    "additionalProperties": False,
}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "line", "schema": _SCHEMA}}
_BAD_BODIES: tuple[tuple[str, object], ...] = (
    (CHAT, b"{"),
    (CHAT, b"\xff\xfe\x00"),
    (CHAT, b"[" * 100_000),
    (CHAT, []),
    (CHAT, {"messages": []}),
    (CHAT, {"messages": [{"role": "user", "content": "?"}], "unknown": 1}),
    (CHAT, {"messages": [{"role": "user", "content": "?"}], "temperature": -1}),
    (CHAT, {"messages": [{"role": "user", "content": "?"}], "model": "nobody"}),
    (CHAT, {"messages": [{"role": "user", "content": "语" * 20_000}]}),
    (COMPLETIONS, {"prompt": [10**9]}),
    (COMPLETIONS, {"prompt": "?", "max_tokens": -1}),
    ("/v1/messages", {"messages": "?"}),
    ("/v1/responses", {"input": 1}),
    ("/tokenize", {}),
)


def list_questions() -> list[tuple[str, dict[str, Any]]]:
    """Return requests with greedy answers: short and long, with tools, grammars and choices."""
    found: list[tuple[str, dict[str, Any]]] = []
    for index, name in enumerate(_NAMES):
        content = f"请背诵{name}的诗。" + _TEXT * (12 * (index % 4 == 3))
        asked = {"messages": [{"role": "user", "content": content}], "temperature": 0}
        found.append((CHAT, asked | {"max_tokens": 8 + 6 * index}))
        if index % 2:
            found.append((CHAT, asked | {"max_tokens": 24, "tools": _TOOLS}))
        else:
            found.append((CHAT, asked | {"max_tokens": 24, "response_format": _FORMAT}))
    found.append((CHAT, found[0][1] | {"n": 3}))
    prompts = [_TEXT, _TEXT * 20]
    found.append((COMPLETIONS, {"prompt": prompts, "max_tokens": 12, "temperature": 0}))
    return found


def read_answers(reply: Reply) -> list[Any]:
    """Return what each choice of a reply says, without ids, which differ every time."""
    found = []
    for choice in reply.json["choices"]:
        message = choice.get("message", {})
        calls = [one["function"] for one in message.get("tool_calls") or []]
        found.append((choice.get("text", message.get("content")), calls, choice["finish_reason"]))
    return found


@dataclass
class Chaos:
    """Visits of a server, and what came of them.

    Attributes:
        server: the server.
        answers: the complete answers to each of `list_questions`, by its number.
        counts: number of visits of each kind.
    """

    server: ServerProcess
    answers: dict[int, list[list[Any]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def run(self, numbers: Iterable[int], threads: int = 12) -> None:
        """Make visits from many threads; the first one that finds a fault raises it."""
        with ThreadPoolExecutor(threads) as pool:
            for kind in pool.map(self._visit, numbers):
                self.counts[kind] = self.counts.get(kind, 0) + 1

    def _visit(self, number: int) -> str:
        """Make one visit; return its kind."""
        chosen = random.Random(number)
        visits: tuple[tuple[Callable[[random.Random], None], int], ...] = (
            (self._ask, 30),
            (self._ask_streaming, 10),
            (self._sample, 12),
            (self._send_bad_body, 14),
            (self._leave_in_head, 6),
            (self._leave_in_body, 8),
            (self._leave_in_stream, 14),
            (self._leave_at_once, 10),
            (self._kill_client, 4),
        )
        (visit,) = chosen.choices([one for one, _ in visits], [weight for _, weight in visits])
        visit(chosen)
        return visit.__name__.removeprefix("_")

    def _ask(self, chosen: random.Random) -> None:
        questions = list_questions()
        number = chosen.randrange(len(questions))
        reply = self.server.request(*questions[number])
        assert reply.status == 200, (number, reply.status, reply.body)
        self.answers.setdefault(number, []).append(read_answers(reply))

    def _ask_streaming(self, chosen: random.Random) -> None:
        """Ask in a stream; its text must be whole, too."""
        number = chosen.randrange(len(_NAMES)) // 2 * 4  # without tools and grammar
        path, body = list_questions()[number]
        reply = self.server.request(path, body | {"stream": True})
        assert reply.status == 200, (number, reply.status, reply.body)
        assert reply.body.endswith(b"data: [DONE]\n\n"), reply.body[-200:]
        choices = [event["choices"][0] for event in reply.events]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        self.answers.setdefault(number, []).append([(text, [], choices[-1]["finish_reason"])])

    def _sample(self, chosen: random.Random) -> None:
        """Ask something that nobody asked before, with chance in the answer."""
        words = [str(chosen.randrange(10**6)) for _ in range(chosen.choice((1, 8, 60)))]
        body = {"messages": [{"role": "user", "content": " ".join(words)}], "temperature": 1}
        body |= {"max_tokens": chosen.randrange(1, 40), "n": chosen.choice((1, 1, 1, 4))}
        if chosen.random() < 0.3:
            body |= {"response_format": _FORMAT, "max_tokens": 60}
        reply = self.server.request(CHAT, body)
        assert reply.status == 200, (reply.status, reply.body)
        for choice in reply.json["choices"]:
            if "response_format" in body and choice["finish_reason"] == "stop":
                assert 1 <= json.loads(choice["message"]["content"])["line"] <= 9

    def _send_bad_body(self, chosen: random.Random) -> None:
        path, body = chosen.choice(_BAD_BODIES)
        reply = self.server.request(path, body)
        assert reply.status in (400, 404, 422), (path, str(body)[:80], reply.status, reply.body)
        assert reply.json["error"]["message"]

    def _leave_in_head(self, chosen: random.Random) -> None:
        data = write_request(*self._make_long(chosen))
        self._send_and_leave(chosen, data[: chosen.randrange(1, data.index(b"\r\n\r\n"))])

    def _leave_in_body(self, chosen: random.Random) -> None:
        data = write_request(*self._make_long(chosen))
        self._send_and_leave(
            chosen, data[: chosen.randrange(data.index(b"\r\n\r\n") + 4, len(data))]
        )

    def _leave_at_once(self, chosen: random.Random) -> None:
        """Leave while the request waits, while its prompt is read, or soon after."""
        self._send_and_leave(chosen, write_request(*self._make_long(chosen)))

    def _leave_in_stream(self, chosen: random.Random) -> None:
        path, body = self._make_long(chosen)
        data = write_request(path, body | {"stream": True})
        self._send_and_leave(chosen, data, num_received=chosen.randrange(1, 4000))

    def _kill_client(self, chosen: random.Random) -> None:
        """Kill a process that reads a stream."""
        path, body = self._make_long(chosen)
        client = start_python(
            "import sys, urllib.request\n"
            "request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), "
            "{'Content-Type': 'application/json'})\n"
            "for line in urllib.request.urlopen(request): print(line, flush=True)",
            self.server.url + path,
            json.dumps(body | {"stream": True}),
        )
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdout.readline()
        time.sleep(chosen.uniform(0, 0.1))
        client.send_signal(signal.SIGKILL)
        assert wait(client) == -signal.SIGKILL
        client.stdout.close()
        client.stderr.close()

    def _make_long(self, chosen: random.Random) -> tuple[str, dict[str, Any]]:
        """Make a request whose answer is longer than its client will wait for."""
        content = f"{chosen.randrange(10**6)}" + _TEXT * chosen.choice((0, 1, 25))
        body = {"messages": [{"role": "user", "content": content}], "ignore_eos": True}
        return CHAT, body | {"max_tokens": 2000, "n": chosen.choice((1, 1, 2))}

    def _send_and_leave(self, chosen: random.Random, data: bytes, num_received: int = 0) -> None:
        """Send bytes, read some, and close the connection, politely or with a reset."""
        with connect(self.server) as connection:
            connection.sendall(data)
            while num_received > 0:
                part = connection.recv(num_received)
                assert part, "the server ended a stream that should go on"
                num_received -= len(part)
            time.sleep(chosen.choice((0, 0, chosen.uniform(0, 0.2))))
            if chosen.random() < 0.5:
                linger = struct.pack("ii", 1, 0)  # close() then sends RST
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def connect(server: ServerProcess) -> socket.socket:
    """Return a connection to a server, whose waits end on a hang."""
    address = urllib.parse.urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), _HANG_SECONDS)


def write_request(path: str, body: object) -> bytes:
    """Return the bytes of a request."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data
