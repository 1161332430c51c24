"""Start, stop, several models, and clients that go away."""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import run_command, wait
from support.servers import ServerProcess, open_stream, start_server

POEM = {"messages": [{"role": "user", "content": "背诵李白的《静夜思》。"}], "temperature": 0}
# Long enough that it is running when the test acts.
LONG = {**POEM, "max_tokens": 3000, "ignore_eos": True}


def read_metric(server: ServerProcess, name: str) -> float:
    text = server.request("/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes a connection."""
    received = b""
    with connection:
        while part := connection.recv(1 << 16):
            received += part
    return received


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; only a server that stands still takes minutes."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("is_streaming", [True, False])
def test_a_client_that_goes_away_frees_its_row(server: ServerProcess, is_streaming: bool) -> None:
    before = read_metric(server, "glm_generated_tokens_total")
    body = {**LONG, "stream": is_streaming}
    connection = open_stream(server, body)
    wait_until(lambda: read_metric(server, "glm_generated_tokens_total") > before)
    assert read_metric(server, "glm_running{") == 1
    connection.close()
    wait_until(lambda: read_metric(server, "glm_running{") == 0)
    assert read_metric(server, "glm_generated_tokens_total") < before + 2000


def test_sigterm_lets_answers_finish(sample_folder: Path) -> None:
    with start_server(sample_folder, "--no-huge-pages", "--threads", 1) as found:
        connection = open_stream(found, {**POEM, "stream": True})
        first = connection.recv(4096)
        assert first.startswith(b"HTTP/1.1 200")
        found.process.send_signal(signal.SIGTERM)
        received = first
        while part := connection.recv(4096):
            received += part
        assert b"[DONE]" in received
        assert wait(found.process) == 0


@pytest.mark.parametrize("one", [signal.SIGTERM, signal.SIGINT])
def test_answers_that_take_longer_than_the_grace_end(
    sample_folder: Path, one: signal.Signals
) -> None:
    """They were cancelled: clients got no reason, and the log a traceback."""
    options = ("--no-huge-pages", "--threads", 1, "--grace", 0.5)
    with start_server(sample_folder, *options) as found:
        streamed, whole = (open_stream(found, {**LONG, "stream": value}) for value in (True, False))
        assert streamed.recv(4096)
        wait_until(lambda: read_metric(found, "glm_running{") == 2)
        found.process.send_signal(one)
        last = read_all(streamed).rpartition(b"data: ")[2]
        assert b'"type": "server_error"' in last, last
        assert b"0\r\n\r\n" in last  # the end of the body
        assert read_all(whole).startswith(b"HTTP/1.1 503")
        assert wait(found.process) == 0
    assert not [line for line in found.log if "Traceback" in line]


def test_several_models(sample_folder: Path) -> None:
    with start_server(f"a={sample_folder}", f"b={sample_folder}", "--lazy") as found:
        models = found.request("/v1/models").json["data"]
        assert [one["id"] for one in models] == ["a", "b"]
        assert read_metric(found, "glm_running{") == 0
        for name in ("a", "b", None):
            body = {**POEM, "max_tokens": 1} | ({} if name is None else {"model": name})
            assert found.request("/v1/chat/completions", body).json["model"] == (name or "a")


def test_an_idle_model_is_unloaded_and_comes_back(sample_folder: Path) -> None:
    with start_server(sample_folder, "--idle-unload", 0.2, "--no-huge-pages") as found:
        wait_until(lambda: "glm_running{" not in found.request("/metrics").body.decode())
        assert found.request("/v1/chat/completions", {**POEM, "max_tokens": 1}).status == 200


def test_a_model_that_is_damaged_ends_the_server(sample_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in sample_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[1000] ^= 1
    (folder / "model.onnx.data").write_bytes(data)
    code, out, err = run_command("glm-run", "serve", folder, "--port", 0)
    assert (code, out) == (1, "")
    assert "Error: " in err
    assert "model.onnx.data" in err
    assert "Traceback" not in err


def test_an_address_that_is_taken(sample_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = run_command("glm-run", "serve", sample_folder, "--port", port)
    assert code == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in err


def test_wrong_usage(sample_folder: Path, tmp_path: Path) -> None:
    for arguments, sentence in (
        ((sample_folder, sample_folder), "two models have the name"),
        ((sample_folder, "--tls-key", "x"), "belong together"),
        ((sample_folder, "--api-key", "schlüssel"), "outside of ASCII"),
    ):
        code, out, err = run_command("glm-run", "serve", *arguments)
        assert (code, out) == (2, ""), err
        assert sentence in err
    code, _, err = run_command("glm-run", "serve", tmp_path / "nothing")
    assert code == 1
    assert "Traceback" not in err
