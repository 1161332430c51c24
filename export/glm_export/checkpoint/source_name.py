"""The name of a checkpoint, as the manifest and the model card give it."""

from pathlib import Path


def name_checkpoint(folder: Path) -> str:
    """Return the folder's name; for a snapshot in the cache of the hub, the model's.

    The cache of Hugging Face has `models--org--name/snapshots/COMMIT`, and a commit says nothing.
    """
    place = folder.resolve()
    name = place.name
    parents = [parent.name for parent in place.parents]
    if parents[:1] == ["snapshots"] and parents[1].startswith("models--"):
        name = parents[1].removeprefix("models--").partition("--")[2] or name
    return name.encode("utf-8", "replace").decode()
