"""Reads which MCP servers there are, in the JSON format that MCP hosts share.

    {
      "mcpServers": {
        "bible": {"command": "python", "args": ["bible.py"], "env": {"LANG": "en"}},
        "web": {"url": "http://127.0.0.1:8000/mcp", "headers": {"Authorization": "Bearer KEY"}}
      },
      "python": {"seconds": 30, "memoryMegabytes": 1024}
    }

`python` is not part of that format; it turns on the built-in tool. Unknown keys are refused,
because a key without effect may be one that should have limited what a server can do.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from glm_agents.errors import AgentError
from glm_runtime.folder.strict_json import parse_json

SERVERS_KEY = "mcpServers"
PYTHON_KEY = "python"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")  # no dot, because `server.tool` must have one reading
_MAX_SERVERS = 64
_STDIO_KEYS = ("type", "command", "args", "env", "cwd")
_HTTP_KEYS = ("type", "url", "headers")
_HTTP_TYPES = ("http", "streamable-http", "streamableHttp")


@dataclass(frozen=True)
class StdioServer:
    """An MCP server that is started as a process.

    Attributes:
        name: name in the configuration.
        command: program to start.
        args: its arguments.
        env: environment variables besides the few that every server gets, such as PATH and HOME.
        cwd: working folder; `None` takes this program's.
    """

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None


@dataclass(frozen=True)
class HttpServer:
    """An MCP server at an address (streamable HTTP).

    Attributes:
        name: name in the configuration.
        url: address, such as `http://127.0.0.1:8000/mcp`.
        headers: headers of every request, for example with a key.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class PythonTool:
    """The built-in tool `python`, which runs code in a sandbox.

    Attributes:
        seconds: time for one call.
        memory_bytes: memory for one call, of all its processes.
        max_processes: largest number of processes and threads at once.
        output_bytes: largest output; the program is ended when it writes more.
    """

    seconds: float = 30.0
    memory_bytes: int = 1 << 30
    max_processes: int = 64
    output_bytes: int = 1 << 20


@dataclass(frozen=True)
class AgentConfiguration:
    """What the loop offers to the model.

    Attributes:
        servers: the MCP servers, in order.
        python: the built-in tool; `None` leaves it out.
    """

    servers: tuple[StdioServer | HttpServer, ...] = ()
    python: PythonTool | None = None


def read_configuration(text: str, where: str) -> AgentConfiguration:
    """Read a configuration.

    Args:
        text: the JSON text.
        where: name of the file, for errors.

    Raises:
        AgentError: it is not JSON, or says something that is unknown or not supported.
    """
    try:
        content = parse_json(text)
    except ValueError as error:
        raise AgentError(
            f"{where} is not JSON ({error}); write an object with {SERVERS_KEY}."
        ) from error
    record = _expect(dict, content, where)
    _refuse_unknown(record, (SERVERS_KEY, PYTHON_KEY), where)
    entries = _expect(dict, record.get(SERVERS_KEY), f"{where}: {SERVERS_KEY}")
    if len(entries) > _MAX_SERVERS:
        raise AgentError(
            f"{where} has {len(entries)} servers where at most {_MAX_SERVERS} are expected; "
            "leave some out."
        )
    servers = tuple(_read_server(name, entry, where) for name, entry in entries.items())
    python = None
    if PYTHON_KEY in record:
        python = _read_python(record[PYTHON_KEY], f"{where}: {PYTHON_KEY}")
    if not servers and python is None:
        raise AgentError(f"{where} names no server where one or python is expected; add one.")
    return AgentConfiguration(servers, python)


def _read_server(name: str, entry: object, file: str) -> StdioServer | HttpServer:
    where = f"{file}: {SERVERS_KEY}.{name}"
    if not _NAME.fullmatch(name) or name == PYTHON_KEY:
        raise AgentError(
            f"{file} has a server named {name!r} where 1 to 64 letters, digits, _ and - are "
            f"expected, but not {PYTHON_KEY}; rename it."
        )
    record = _expect(dict, entry, where)
    kind = record.get("type")
    if ("command" in record) == ("url" in record):
        raise AgentError(
            f"{where} has {'both' if 'url' in record else 'neither'} command and url where one "
            "of them is expected; give a command to start, or the url of a running server."
        )
    if "url" in record:
        _refuse_unknown(record, _HTTP_KEYS, where)
        _require_kind(kind, _HTTP_TYPES, where)
        url = _require_url(_expect(str, record["url"], f"{where}.url"), where)
        return HttpServer(name, url, _read_texts(record, "headers", where))
    _refuse_unknown(record, _STDIO_KEYS, where)
    _require_kind(kind, ("stdio",), where)
    args = _expect(list, record.get("args", []), f"{where}.args")
    return StdioServer(
        name,
        _require_text(record["command"], f"{where}.command"),
        tuple(_require_text(one, f"{where}.args", is_free=True) for one in args),
        _read_texts(record, "env", where),
        _require_text(record["cwd"], f"{where}.cwd") if "cwd" in record else None,
    )


def _read_python(entry: object, where: str) -> PythonTool:
    record = _expect(dict, entry, where)
    _refuse_unknown(record, ("seconds", "memoryMegabytes"), where)
    tool = PythonTool()
    seconds, megabytes = (
        _require_positive(record.get(key, default), f"{where}.{key}")
        for key, default in (("seconds", tool.seconds), ("memoryMegabytes", 1024))
    )
    return PythonTool(seconds, round(megabytes * (1 << 20)))


def _require_kind(kind: object, known: tuple[str, ...], where: str) -> None:
    if kind is not None and kind not in known:
        raise AgentError(
            f"{where}.type is {kind!r:.80} where {' or '.join(known)} is expected; other "
            "transports are not supported."
        )


def _require_url(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        is_usable = has_port = False
    if not is_usable or not has_port or not url.isprintable():
        raise AgentError(
            f"{where}.url is {url!r:.120} where an address that begins with http:// or https:// "
            "is expected; correct it."
        )
    return url


def _read_texts(record: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    texts = _expect(dict, record.get(key, {}), f"{where}.{key}")
    return {
        name: _require_text(text, f"{where}.{key}.{name}", is_free=True)
        for name, text in texts.items()
    }


def _require_text(value: object, where: str, *, is_free: bool = False) -> str:
    """Return a text; one that is free may be empty or have several lines."""
    text: str = _expect(str, value, where)
    if "\0" in text or not (is_free or (text and "\n" not in text)):
        raise AgentError(f"{where} is {text!r:.80} where one line of text is expected; correct it.")
    return text


def _require_positive(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise AgentError(
            f"{where} is {value!r:.80} where a number above 0 is expected; correct it."
        )
    return float(value)


def _expect(kind: type, value: object, where: str) -> Any:
    if type(value) is not kind:
        names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
        found = "missing" if value is None else f"{value!r:.80}"
        raise AgentError(f"{where} is {found} where {names[kind]} is expected; correct it.")
    return value


def _refuse_unknown(record: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in record:
        if key not in known:
            raise AgentError(
                f"{where} has the unknown key {key!r} where only {', '.join(known)} are expected; "
                "leave it out."
            )
