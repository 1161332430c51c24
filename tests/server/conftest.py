"""One server process for the tests of a worker, with the sample model."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

import glm_runtime
from support.mcp_requests import OPTIONS, configure
from support.servers import ServerProcess, start_server


@pytest.fixture(scope="session")
def server(sample_folder: Path) -> Iterator[ServerProcess]:
    """A server without a key; the sample is its model `sample`."""
    with start_server(f"sample={sample_folder}", "--threads", 1, "--no-huge-pages") as found:
        yield found


@pytest.fixture(scope="session")
def client(server: ServerProcess) -> openai.OpenAI:
    """OpenAI's own client of that server."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def operated(
    sample_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server with the tools of the MCP server `bible`."""
    tools = configure(tmp_path_factory.mktemp("tools"), "bible")
    with start_server(f"sample={sample_folder}", "--tools", tools, *OPTIONS) as found:
        yield found


@pytest.fixture(scope="session")
def operator(operated: ServerProcess) -> openai.OpenAI:
    """OpenAI's own client of that server."""
    return openai.OpenAI(base_url=f"{operated.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def model(sample_folder: Path) -> glm_runtime.Model:
    """The sample in this process, for what its answers must be."""
    return glm_runtime.load(sample_folder, "cpu", 1)
