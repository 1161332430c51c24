"""Models of the Hugging Face Hub: `org/name` or `org/name@revision` in place of a folder.

Nothing here runs unless such a name is given. The package huggingface_hub, which tokenizers brings,
reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and the token.
"""

import glob
import importlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from glm_runtime.cli.progress import is_quiet, say
from glm_runtime.errors import HubError, MissingDependencyError, first_line
from glm_runtime.folder.manifest import MANIFEST_NAME, read_manifest

_NAME = r"[A-Za-z0-9][\w.-]*"
_HUB_ID = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(@(?P<revision>[\w./-]+))?", re.ASCII)
# Small files of a checkpoint that an export reads.
CHECKPOINT_FILES = (
    *("config.json", "generation_config.json", "README.md", "LICENSE*"),
    *("quantize_config.json", "quant_config.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
)


@dataclass(frozen=True)
class HubId:
    """A model of the hub.

    Attributes:
        repository: `org/name`.
        revision: branch, tag or commit; `None` is the main branch.
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")


class FolderPath(click.Path):
    """The click type of a folder or a model of the hub; what begins with `./` is a folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Make such a path absolute if it could also be the name of a model."""
        path = Path(str(super().convert(value, param, ctx)))
        is_folder = str(value).startswith(("./", ".\\")) and parse_hub_id(path) is not None
        return Path.cwd() / path if is_folder else path


def parse_hub_id(path: Path) -> HubId | None:
    """Return the model that a path names; `None` if it names a place on this machine.

    A path that exists, or whose first part does or is `artifacts`, is never a model of the hub, so
    that a wrong path sends nothing.

    Raises:
        HubError: the path is a URL.
    """
    url = re.fullmatch(r"(https?):/+(.+)", path.as_posix())  # Path joins the two slashes
    if url is not None and not os.path.lexists(path):
        raise HubError(
            f"{url[1]}://{url[2]} is a URL where a folder or the name of a model of the hub is "
            "expected; write org/name or org/name@revision."
        )
    found = _HUB_ID.fullmatch(path.as_posix())
    if found is None or path.parts[0] == "artifacts" or os.path.lexists(path.parts[0]):
        return None
    return HubId(found["repository"], found["revision"])


def find_checkpoint(path: Path) -> Path:
    """Return a folder with a checkpoint; a model of the hub is downloaded into the hub's cache.

    Weights are taken in the order of transformers: model.safetensors, its shards, then .bin files.

    Raises:
        HubError: the model cannot be downloaded.
    """
    hub_id = parse_hub_id(path)
    if hub_id is None:
        return path
    fetch = Download(hub_id).fetch
    folder = fetch(CHECKPOINT_FILES)
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        fetch((name,), folder.name)
        if not (folder / name).exists() and index.is_file():
            fetch(tuple(glob.escape(name) for name in list_shards(index)), folder.name)
        if (folder / name).exists() or (index.is_file() and list_shards(index)):
            return folder
    fetch(("*.safetensors", "pytorch_model*.bin"), folder.name)
    return folder


def find_adapter(path: Path) -> Path:
    """Return a folder with a LoRA adapter; one of the hub is downloaded into the hub's cache.

    Raises:
        HubError: the adapter cannot be downloaded.
    """
    hub_id = parse_hub_id(path)
    if hub_id is None:
        return path
    fetch = Download(hub_id).fetch
    folder = fetch(("adapter_config.json", "adapter_model.safetensors"))
    if not (folder / "adapter_model.safetensors").exists():
        fetch(("adapter_model.bin",), folder.name)
    return folder


def find_folder(path: Path) -> Path:
    """Return an exported folder; a model of the hub is downloaded as plain files below HF_HOME.

    Raises:
        HubError: the model cannot be downloaded, or was not written by glm-export.
        FolderError: its manifest is not valid.
    """
    hub_id = parse_hub_id(path)
    if hub_id is None:
        return path
    download = Download(hub_id)
    place = download.place
    download.fetch((MANIFEST_NAME,), local=place)
    if not (place / MANIFEST_NAME).is_file():
        raise HubError(
            f"{hub_id} has no {MANIFEST_NAME}, so glm-export did not write it; export it first: "
            f"glm-export {hub_id} -o DIR."
        )
    names = [glob.escape(name) for name in read_manifest(place).files]
    download.fetch((MANIFEST_NAME, *names), local=place)
    return place


def check_push(repository: str) -> None:
    """Refuse a push that must fail, before the export.

    Raises:
        HubError: the name is not `org/name`, or there is no token.
    """
    found = _HUB_ID.fullmatch(repository)
    if found is None or found["revision"] is not None:
        raise HubError(f"--push is {repository!r} where org/name is expected; correct it.")
    if _import_library().get_token() is None:
        raise HubError("--push needs a token; log in with `hf auth login`, or set HF_TOKEN.")


def push_folder(folder: Path, repository: str) -> str:
    """Upload an exported folder with its card; a new repository is private. Return its address.

    Raises:
        HubError: the hub refuses it, or cannot be reached.
    """
    library = _import_library()
    say(f"uploading to {_find_endpoint(library)}/{repository}")
    with _explain(HubId(repository), library):
        api = library.HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload by glm-export"
        )
    return f"{_find_endpoint(library)}/{repository}"


class Download:
    """Downloads files of one model."""

    def __init__(self, hub_id: HubId) -> None:
        self._hub_id = hub_id
        self._library = _import_library()
        say(f"taking {hub_id} from {_find_endpoint(self._library)} or from the cache")

    @property
    def place(self) -> Path:
        """Folder for plain files: a link to the hub's cache would leave the exported folder."""
        name = self._hub_id.repository.replace("/", "--")
        revision = (self._hub_id.revision or "main").replace("/", "--")
        return Path(self._library.constants.HF_HOME) / "glm-export" / name / revision

    def fetch(
        self, patterns: tuple[str, ...], revision: str | None = None, local: Path | None = None
    ) -> Path:
        """Download the files that match; return the folder."""
        with _explain(self._hub_id, self._library):
            return Path(
                self._library.snapshot_download(
                    self._hub_id.repository,
                    revision=revision or self._hub_id.revision,
                    allow_patterns=list(patterns),
                    local_dir=local,
                )
            )

    def has_file(self, name: str, revision: str) -> bool:
        """Return True if the model has a file at a commit."""
        with _explain(self._hub_id, self._library):
            api = self._library.HfApi()
            return bool(api.file_exists(self._hub_id.repository, name, revision=revision))

    def read_header(self, name: str, revision: str) -> dict[str, dict[str, object]]:
        """Return the header of a *.safetensors file without its other keys, by range requests."""
        with _explain(self._hub_id, self._library):
            found = self._library.HfApi().parse_safetensors_file_metadata(
                self._hub_id.repository, name, revision=revision
            )
            return {
                tensor: {"dtype": one.dtype, "shape": one.shape, "data_offsets": one.data_offsets}
                for tensor, one in found.tensors.items()
            }


def list_shards(index: Path) -> tuple[str, ...]:
    """Return the names of the weight files that an index lists; none if it is broken."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return tuple(sorted({str(name) for name in names}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()


def _import_library() -> ModuleType:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        library = importlib.import_module("huggingface_hub")  # only for models of the hub
        for name in ("constants", "errors", "utils.logging", "utils.tqdm"):
            importlib.import_module(f"huggingface_hub.{name}")
    except ImportError as error:
        raise MissingDependencyError(
            f"models of the hub need huggingface_hub, which cannot be imported ({error}); install "
            "it with `pip install huggingface_hub`."
        ) from error
    library.utils.logging.set_verbosity_error()  # its warnings name arguments of Python functions
    if is_quiet():
        library.utils.disable_progress_bars()
    return library


def _find_endpoint(library: ModuleType) -> str:
    endpoint: str = library.constants.ENDPOINT
    return endpoint


@contextmanager
def _explain(hub_id: HubId, library: ModuleType) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # huggingface_hub raises errors of several HTTP packages
        kinds: list[tuple[type[Exception], Callable[[], str]]] = [
            (library.errors.GatedRepoError, lambda: _say_gated(hub_id, library)),
            (library.errors.RepositoryNotFoundError, lambda: _say_missing(hub_id, library)),
            (library.errors.RevisionNotFoundError, lambda: _say_revision(hub_id)),
        ]
        for kind, describe in kinds:
            if isinstance(error, kind):
                raise HubError(describe()) from error
        if library.constants.HF_HUB_OFFLINE:
            raise HubError(
                f"{hub_id} is not complete in the cache, and HF_HUB_OFFLINE forbids to download "
                "it; download it once without HF_HUB_OFFLINE, or give a folder."
            ) from error
        reason = first_line(error.__cause__ or error).rstrip(".")
        raise HubError(
            f"the request for {hub_id} to {_find_endpoint(library)} failed ({reason}); check the "
            "network and HF_ENDPOINT, or give a folder."
        ) from error


def _say_gated(hub_id: HubId, library: ModuleType) -> str:
    return (
        f"{hub_id} is gated; accept its terms at {_find_endpoint(library)}/{hub_id.repository}, "
        "and log in with `hf auth login` or set HF_TOKEN."
    )


def _say_missing(hub_id: HubId, library: ModuleType) -> str:
    return (
        f"there is no folder {hub_id} here, and {_find_endpoint(library)} has no such model, or it "
        "is private; check the name, or log in with `hf auth login`."
    )


def _say_revision(hub_id: HubId) -> str:
    return (
        f"{hub_id.repository} has no revision {hub_id.revision}; name a branch, a tag or a commit."
    )
