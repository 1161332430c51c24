"""The programs in examples/server/ run as their first lines say, also OpenAI's npm client."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import npm_packages
from support.servers import ServerProcess

EXAMPLES = Path(__file__).parents[2] / "examples" / "server"
GENESIS = "In the beginning God created the heaven and the earth."


def run(*command: object) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_openai_s_client(server: ServerProcess) -> None:
    shown = run(sys.executable, "-X", "utf8", EXAMPLES / "openai_client.py", server.url)
    streamed, _, rest = shown.partition("is_poem=")
    assert "床前明月光" in streamed
    assert "床前明月光" in rest  # what the tool returned
    assert rest.startswith(("True", "False"))


def test_anthropic_s_client(server: ServerProcess) -> None:
    shown = run(sys.executable, EXAMPLES / "anthropic_client.py", server.url, "sample")
    assert GENESIS in shown


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(server: ServerProcess) -> None:
    shown = run("sh", EXAMPLES / "curl.sh", server.url)
    assert GENESIS in shown
    assert "data: [DONE]" in shown
    assert 'glm_cached_tokens_total{model="sample"}' in shown


def test_openai_s_npm_client(server: ServerProcess, tmp_path: Path) -> None:
    npm_packages.require_node()
    npm_packages.require_registry()
    for name in ("openai_client.js", "package.json"):
        shutil.copy(EXAMPLES / name, tmp_path)
    done = npm_packages.run(["npm", "install", "--no-audit", "--no-fund"], tmp_path)
    assert done.returncode == 0, done.stderr
    done = npm_packages.run(["node", "openai_client.js", server.url], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "《静夜思》" in done.stdout
    assert done.stdout.rstrip().endswith(" tokens")


def test_the_programs_of_the_guide(
    server: ServerProcess,
    sample_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (EXAMPLES.parents[1] / "docs" / "server.md").read_text(encoding="utf-8")
    asks, makes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(asks.replace("http://127.0.0.1:8080", server.url).replace("glm4-int4", "sample"), {})
    assert capsys.readouterr().out
    monkeypatch.chdir(sample_folder.parents[1])
    made: dict[str, Any] = {}
    exec(makes.replace("glm4-int4", sample_folder.name), made)
    assert "/v1/messages" in made["app"].openapi()["paths"]


@pytest.mark.parametrize("name", ["openai_client.py", "anthropic_client.py", "curl.sh"])
def test_without_arguments_an_example_says_how_to_call_it(name: str) -> None:
    program = "sh" if name.endswith(".sh") else sys.executable
    done = subprocess.run([program, EXAMPLES / name], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"examples/server/{name} URL" in done.stderr
