"""A checkpoint of the hub for a plan: its small files, and the headers of its weights.

The headers are fetched by range requests. Each becomes a file of the full size whose tensors are
zeros that take no space. Nobody can take such a file for weights, because its folder is temporary.
Read `hub.py` before.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_runtime.cli.hub import (
    CHECKPOINT_FILES,
    Download,
    HubId,
    find_checkpoint,
    list_shards,
    parse_hub_id,
)
from glm_runtime.cli.progress import say
from glm_runtime.errors import HubError

_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_QUANTIZED = ("quantize_config.json", "quant_config.json")
_WHOLE = "the plan needs the weights"


@contextmanager
def find_planned(path: Path) -> Iterator[Path]:
    """Yield a folder with everything that a plan reads of a checkpoint.

    A model of the hub whose weights are not in the cache gets a temporary folder, unless a plan
    reads values of its weights: those that are quantized already, and .bin files, are downloaded.

    Raises:
        HubError: the model cannot be downloaded.
    """
    hub_id = parse_hub_id(path)
    if hub_id is None:
        yield path
        return
    download = Download(hub_id)
    folder = download.fetch(CHECKPOINT_FILES)
    names = () if _is_quantized(folder) else _list_weights(download, folder)
    if not names:
        say(f"{_WHOLE} of {hub_id}, because they are quantized already or in .bin files")
    if not names or all((folder / name).exists() for name in names):
        yield find_checkpoint(path)
        return
    say(f"reading the headers of {len(names)} weight files; speeds are measured with zeros")
    with tempfile.TemporaryDirectory() as temporary:
        # The name of the model is read from this path, as from the hub's cache.
        repository = hub_id.repository.replace("/", "--")
        place = Path(temporary, f"models--{repository}", "snapshots", folder.name)
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
        for name in names:
            _write_zeros(place / name, download.read_header(name, folder.name), hub_id)
        yield place


def _is_quantized(folder: Path) -> bool:
    if any((folder / name).exists() for name in _QUANTIZED):
        return True
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # the plan says what is wrong with it
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def _list_weights(download: Download, folder: Path) -> tuple[str, ...]:
    """Return the names of the safetensors files, in the order of `find_checkpoint`."""
    if (folder / _WEIGHTS).exists() or download.has_file(_WEIGHTS, folder.name):
        return (_WEIGHTS,)
    if not (folder / _INDEX).is_file():
        return ()
    names = list_shards(folder / _INDEX)
    is_plain = all(name.endswith(".safetensors") and "/" not in name for name in names)
    return names if is_plain else ()


def _write_zeros(path: Path, tensors: dict[str, dict[str, object]], hub_id: HubId) -> None:
    header = json.dumps(tensors).encode()
    ends = [one["data_offsets"][1] for one in tensors.values()]  # type: ignore[index]
    try:
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + max(ends, default=0))
    except (OSError, OverflowError, ValueError) as error:
        raise HubError(
            f"the header of {path.name} of {hub_id} cannot be laid out in {path.parent} ({error}); "
            "set TMPDIR to another folder, or download the model before the plan."
        ) from error
