"""Who may use the server: keys, the `Host` and `Origin` of browsers."""

import re
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest

from support.commands import run_command
from support.servers import ServerProcess, start_server

KEYS = ("first-key", "second-key")
PAGE = "https://page.example"
ASKED = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def guarded(
    sample_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with keys, which pages of one origin may call."""
    file = tmp_path_factory.mktemp("keys") / "keys.txt"
    file.write_text("\n".join(KEYS) + "\n", encoding="utf-8")
    options = ("--api-key-file", file, "--cors-origin", PAGE, "--lazy", "--no-huge-pages")
    with start_server(sample_folder, *options) as found:
        yield found


@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/openapi.json", "/v1/chat/completions", "/x"]
)
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "first-key"}, {"x-api-key": "é"}],
)
def test_without_the_key_nothing_is_open(
    guarded: ServerProcess, path: str, headers: dict[str, str]
) -> None:
    reply = guarded.request(path, headers=headers)
    assert reply.status == 401
    assert reply.json["error"]["code"] == "invalid_api_key"
    assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_each_key_opens(guarded: ServerProcess, key: str, header: str) -> None:
    value = f"Bearer {key}" if header == "authorization" else key
    assert guarded.request("/v1/models", headers={header: value}).status == 200


def test_a_right_key_beside_a_wrong_one_opens(guarded: ServerProcess) -> None:
    """Clients send what their environment has in `Authorization`, and the key was not looked at."""
    headers = {"Authorization": "Bearer other-service", "x-api-key": KEYS[0]}
    assert guarded.request("/v1/models", headers=headers).status == 200
    headers = {"Authorization": f"Bearer {KEYS[1]}", "x-api-key": "other-service"}
    assert guarded.request("/v1/models", headers=headers).status == 200


def test_health_needs_no_key(guarded: ServerProcess) -> None:
    assert guarded.request("/health").status == 200
    assert guarded.request("/health", method="HEAD").status == 200


def test_the_clients_read_the_id_under_which_a_request_is_logged(guarded: ServerProcess) -> None:
    """Refused requests are logged, and counted, too."""
    first = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=KEYS[0], max_retries=0)
    second = anthropic.Anthropic(base_url=guarded.url, api_key=KEYS[0], max_retries=0)
    models = first.models.list()
    counted = second.messages.count_tokens(
        model=models.data[0].id, messages=[{"role": "user", "content": "x"}]
    )
    with pytest.raises(openai.AuthenticationError) as caught:
        first.with_options(api_key="wrong").models.list()
    found = [models._request_id, counted._request_id, caught.value.request_id]
    assert len({one for one in found if one}) == 3
    metrics = guarded.request("/metrics", headers={"x-api-key": KEYS[0]}).body.decode()
    assert re.search(r'^glm_requests_total\{.*status="401".*\} ', metrics, re.MULTILINE)
    log = "".join(guarded.log)
    assert all(str(one) in log for one in found)


def test_the_clients_raise_their_own_error(guarded: ServerProcess) -> None:
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0).models.list()
    with pytest.raises(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=guarded.url, api_key="wrong", max_retries=0).messages.create(
            model="x", max_tokens=1, messages=[{"role": "user", "content": "x"}]
        )


def test_a_page_of_an_admitted_origin(guarded: ServerProcess) -> None:
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization"
    reply = guarded.request("/v1/chat/completions", headers=asks, method="OPTIONS")
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == PAGE
    other = guarded.request(
        "/v1/chat/completions",
        headers={**asks, "Origin": "https://other.example"},
        method="OPTIONS",
    )
    assert "access-control-allow-origin" not in {name.lower() for name in other.headers}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "", "localhost.evil.example"]
)
def test_a_name_that_was_pointed_at_us_is_refused(server: ServerProcess, host: str) -> None:
    """DNS rebinding: the page's own name leads to 127.0.0.1, so its requests have no Origin."""
    reply = server.request("/v1/models", headers={"Host": host})
    assert reply.status == 403
    assert "Host" in reply.json["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8080", "192.168.0.7"])
def test_addresses_cannot_be_pointed_anywhere(server: ServerProcess, host: str) -> None:
    assert server.request("/v1/models", headers={"Host": host}).status == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
def test_pages_of_other_origins_may_not_send_forms(server: ServerProcess, origin: str) -> None:
    reply = server.request("/v1/chat/completions", ASKED, {"Origin": origin})
    assert reply.status == 403


def test_a_page_of_the_server_may(server: ServerProcess) -> None:
    assert server.request("/v1/models", headers={"Origin": server.url}).status == 200


def test_an_allowed_name(sample_folder: Path) -> None:
    options = ("--allow-host", "box.example", "--lazy")
    with start_server(sample_folder, *options) as found:
        assert found.request("/v1/models", headers={"Host": "box.example:80"}).status == 200
        assert found.request("/v1/models", headers={"Host": "other.example"}).status == 403


def test_tls(sample_folder: Path, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    command += ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    files = ("--tls-certificate", certificate, "--tls-key", key)
    with start_server(sample_folder, "--lazy", *files) as found:
        assert found.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(f"{found.url}/health", context=context) as response:
            assert response.status == 200
    key.write_text("no key", encoding="utf-8")
    code, _, err = run_command("glm-run", "serve", sample_folder, "--port", 0, *files)
    assert code == 1
    assert "the certificate or its key cannot be used" in err
