"""`glm-run serve` answers requests over HTTP. The server itself is the package `glm_server`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_runtime.cli.agent import read_agents
from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.hub import FolderPath, find_folder, parse_hub_id
from glm_runtime.cli.options import (
    PATH,
    Command,
    MachineOptions,
    count_option,
    gather,
    machine_options,
    read_file,
    show_examples,
)
from glm_runtime.cli.progress import quiet_option, say, show_progress
from glm_runtime.errors import MissingDependencyError, SamplingError

if TYPE_CHECKING:
    from glm_server.settings import ServerSettings


_ACCESS_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8080,
        show_default=True,
        help="Port to listen on; 0 takes a free one.",
    ),
    click.option(
        "--api-key",
        "api_keys",
        metavar="KEY",
        multiple=True,
        envvar="GLM_API_KEY",
        help="Key that clients must send.  May be repeated.  [environment: GLM_API_KEY]",
    ),
    click.option(
        "--api-key-file", metavar="FILE", type=PATH, help="File with one API key per line."
    ),
    click.option(
        "--allow-host",
        "allowed_hosts",
        metavar="NAME",
        multiple=True,
        help="Name by which clients may reach a server without an API key.  May be repeated.",
    ),
    click.option(
        "--cors-origin",
        "cors_origins",
        metavar="ORIGIN",
        multiple=True,
        help="Origin whose pages may call the server, or *.  May be repeated.",
    ),
    click.option("--log-prompts", "logs_prompts", is_flag=True, help="Log prompts and answers."),
)
_CAPACITY_OPTIONS = (
    click.option(
        "--parallel",
        metavar="N",
        type=click.IntRange(1, 256),
        default=4,
        show_default=True,
        help="Largest number of answers at once, for each model.",
    ),
    click.option(
        "--max-waiting",
        metavar="N",
        type=click.IntRange(0, 100_000),
        default=64,
        show_default=True,
        help="Largest number of requests that wait; others are refused with status 429.",
    ),
    click.option(
        "--context-memory",
        metavar="GB",
        type=click.FloatRange(0, min_open=True),
        help="Memory for KV caches and the prefix cache, for each model.  "
        "[default: half of what is free]",
    ),
    click.option(
        "--prompt-cache",
        metavar="DIR",
        type=PATH,
        help="Folder that keeps the prefix cache across restarts.",
    ),
    click.option(
        "--prompt-cache-size",
        metavar="GB",
        type=click.FloatRange(0, min_open=True),
        default=10.0,
        show_default=True,
        help="Largest size of the folder of --prompt-cache.",
    ),
    click.option(
        "--tools",
        metavar="FILE",
        type=PATH,
        help="JSON file with mcpServers: clients of /v1/responses may ask for their tools.",
    ),
    count_option(
        "--max-turns",
        "Largest number of answers of one response that call these tools.  [default: 35]",
    ),
    click.option(
        "--idle-unload",
        "idle_unload_seconds",
        metavar="SECONDS",
        type=click.FloatRange(0, min_open=True),
        help="Unload a model that nobody used for this time.  [default: never]",
    ),
    click.option(
        "--grace",
        "grace_seconds",
        metavar="SECONDS",
        type=click.FloatRange(0),
        default=30.0,
        show_default=True,
        help="Time for running answers when the server is stopped.",
    ),
)


def _server_options(command: Command) -> Command:
    """Add the options of `ServerSettings`, as one argument `values`."""
    return gather("values", (*_ACCESS_OPTIONS, *_CAPACITY_OPTIONS), dict, command)


@click.command(
    epilog=show_examples(
        "glm-run serve artifacts/glm4-int4",
        "glm-run serve artifacts/glm4-int4 poems=artifacts/glm4-sample --api-key-file keys.txt",
        "glm-run serve artifacts/glm4-int4 --host 0.0.0.0 --parallel 8 --context-memory 6",
    )
)
@click.argument("models", metavar="[NAME=]DIR...", nargs=-1, required=True)
@_server_options
@click.option("--lazy", "is_lazy", is_flag=True, help="Load each model at its first use.")
@click.option("--tls-certificate", metavar="FILE", type=PATH, help="Certificate for HTTPS (PEM).")
@click.option("--tls-key", metavar="FILE", type=PATH, help="Private key for HTTPS (PEM).")
@machine_options
@quiet_option
@debug_option
def serve(
    models: Sequence[str],
    values: dict[str, Any],
    machine: MachineOptions,
    is_lazy: bool,
    tls_certificate: Path | None,
    tls_key: Path | None,
) -> None:
    """Answer requests over HTTP, as OpenAI's and Anthropic's clients send them.

    Each DIR is an exported folder or a model of the Hugging Face Hub (org/name). Requests name it
    by NAME, or by the folder's or model's own name.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key belong together; give both.")
    run_server = _import_server()
    settings = _make_settings(values, machine)
    folders = _name_folders(models)
    if not settings.api_keys and settings.host not in ("127.0.0.1", "::1", "localhost"):
        say("warning: everyone who reaches this address may use the server; set --api-key-file")
    tls = None if tls_certificate is None or tls_key is None else (tls_certificate, tls_key)

    def announce(url: str) -> None:
        click.echo(url)
        say(f"serving {', '.join(folders)} at {url}/v1 (Ctrl-C stops)")

    with show_progress() as progress:
        run_server(
            folders, settings, is_lazy=is_lazy, tls=tls, announce=announce, progress=progress
        )


def _make_settings(values: dict[str, Any], machine: MachineOptions) -> "ServerSettings":
    from glm_server.settings import ServerSettings  # noqa: PLC0415  # an optional package

    memory, key_file = values.pop("context_memory"), values.pop("api_key_file")
    values["prompt_cache_bytes"] = round(values.pop("prompt_cache_size") * 1e9)
    keys = tuple(values.pop("api_keys"))
    if key_file is not None:
        keys += tuple(line.strip() for line in read_file(key_file).splitlines() if line.strip())
        if not keys:
            raise click.UsageError(f"{key_file} holds no API key; write one per line.")
    tools, max_turns = values.pop("tools"), values.pop("max_turns")
    if tools is not None:
        values["agents"], values["agent_limits"] = read_agents(tools, max_turns)
    elif max_turns is not None:
        raise click.UsageError("--max-turns has no effect without --tools; leave it out.")
    values["context_bytes"] = None if memory is None else round(memory * 1e9)
    try:
        return ServerSettings(
            api_keys=keys,
            device=machine.device,
            threads=machine.threads,
            has_huge_pages=machine.huge_pages is not False,
            cuda_graph=machine.cuda_graph,
            rope_scaling=machine.scaling,
            **values,
        )
    except SamplingError as error:
        raise click.UsageError(str(error)) from error


def _name_folders(models: Sequence[str]) -> dict[str, Path]:
    """Return folders by the ids of their models; by default the folder's or hub model's name."""
    folders: dict[str, Path] = {}
    for given in models:
        name, separator, path = given.partition("=")
        if not separator or Path(given).exists():
            name, path = "", given
        place = FolderPath().convert(path, None, None)
        hub_id = parse_hub_id(place)
        folder = find_folder(place)
        own_name = folder.resolve().name if hub_id is None else Path(hub_id.repository).name
        name = name or own_name
        if name in folders:
            raise click.UsageError(
                f"two models have the name {name!r}; write NAME=DIR for one of them."
            )
        folders[name] = folder
    return folders


def _import_server() -> Callable[..., None]:
    try:
        from glm_server.program import run_server  # noqa: PLC0415  # an optional package
    except ImportError as error:
        raise MissingDependencyError(
            f"the server's packages cannot be imported ({error}); install them with "
            "`pip install fastapi uvicorn prometheus-client`."
        ) from error
    return run_server
