"""Clients of a server: streams with the times of their tokens, and loads of several clients.

Prompts are token ids, and every answer has a fixed length, so that all servers do the same work.
The clients use the standard library, which takes little of the processor from the servers.
"""

import http.client
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.processes import ChildError
from benchmarks.serve.servers import Server

Prompt = Sequence[int]
_PATH = "/v1/completions"
_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True)
class Reply:
    """A streamed answer.

    Attributes:
        begin: when the request was sent, in seconds of `time.perf_counter`.
        times: when each event with text arrived.
        num_tokens: number of tokens, by the server's own count.
        num_cached: number of prompt tokens that the server did not read again, by its own count.
    """

    begin: float
    times: tuple[float, ...]
    num_tokens: int
    num_cached: int

    @property
    def first_seconds(self) -> float:
        """Time to the first token."""
        return self.times[0] - self.begin

    @property
    def gaps(self) -> list[float]:
        """Times between tokens, in seconds."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]

    @property
    def token_seconds(self) -> float:
        """Mean time of a token after the first."""
        return (self.times[-1] - self.times[0]) / (self.num_tokens - 1)


@dataclass(frozen=True)
class Load:
    """What several clients measured together.

    Attributes:
        replies: all answers.
        seconds: from the first request to the end of the last answer.
    """

    replies: tuple[Reply, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Generated tokens per second of all clients together."""
        return sum(reply.num_tokens for reply in self.replies) / self.seconds


def ask(
    server: Server, prompt: Prompt, num_tokens: int, on_token: Callable[[], None] | None = None
) -> Reply:
    """Stream a greedy answer of exactly `num_tokens` tokens.

    Raises:
        ChildError: the server refused, or gave fewer tokens.
    """
    body = {"prompt": list(prompt), "max_tokens": num_tokens, "temperature": 0, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "ignore_eos": True}
    connection = http.client.HTTPConnection(server.host, server.port, timeout=_TIMEOUT_SECONDS)
    begin = time.perf_counter()
    connection.request("POST", _PATH, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise ChildError(f"{server.name} answered {response.status}: {response.read()[:500]!r}")
    times, usage = [], {}
    for line in response:
        now = time.perf_counter()
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line.removeprefix(b"data: "))
        usage = event.get("usage") or usage
        if event.get("choices") and event["choices"][0].get("text"):
            times.append(now)
            if on_token is not None:
                on_token()
    connection.close()
    if not times or usage.get("completion_tokens") != num_tokens:
        raise ChildError(f"{server.name} gave {usage} where {num_tokens} tokens were asked for.")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return Reply(begin, tuple(times), num_tokens, cached)


def run_load(
    server: Server, clients: Sequence[Sequence[Prompt]], num_tokens: int, pauses: "Pauses"
) -> Load:
    """Let clients ask one after the other, each of its prompts after a pause.

    Raises:
        ChildError: the server refused, or gave fewer tokens.
    """

    def run_client(index: int) -> list[Reply]:
        found = []
        for place, prompt in enumerate(clients[index]):
            time.sleep(pauses.find(index, place))
            found.append(ask(server, prompt, num_tokens))
        return found

    with ThreadPoolExecutor(len(clients)) as pool:
        replies = [reply for some in pool.map(run_client, range(len(clients))) for reply in some]
    begin = min(reply.begin for reply in replies)
    end = max(reply.times[-1] for reply in replies)
    return Load(tuple(replies), end - begin)


class Pauses:
    """Exponential pauses with a fixed seed: each client's requests arrive as a Poisson process."""

    def __init__(self, mean_seconds: float, seed: int) -> None:
        self._mean_seconds = mean_seconds
        self._seed = seed

    def find(self, client: int, place: int) -> float:
        """Return the pause of a client before one of its requests, in seconds."""
        random = np.random.default_rng([self._seed, client, place])
        return float(random.exponential(self._mean_seconds))
