"""`glm-run prepare` makes a copy of a model that loads faster on this machine."""

import json
import time
from pathlib import Path

import click

from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.hub import find_folder
from glm_runtime.cli.options import folder_argument, json_option, show_examples
from glm_runtime.cli.progress import quiet_option, show_progress
from glm_runtime.cli.terminal import format_bytes
from glm_runtime.folder.manifest import read_manifest, require_whole
from glm_runtime.graph.prepared import PreparedModels


@click.command(
    epilog=show_examples(
        "glm-run prepare artifacts/glm4-int4",
        "glm-run prepare artifacts/glm4-int4 --json",
        "glm-run prepare artifacts/glm4-int4 --remove",
    )
)
@folder_argument
@click.option("--remove", is_flag=True, help="Delete all copies of this model.")
@json_option
@quiet_option
@debug_option
def prepare(folder: Path, remove: bool, is_json: bool) -> None:
    """Make a copy of a model that loads faster on this machine's CPU.

    The copy is in the user's cache folder, and every command uses it without an option. It is valid
    for one version of onnxruntime and one processor, and takes about twice the folder's space.
    """
    folder = find_folder(folder)
    manifest = read_manifest(folder)
    copies = PreparedModels.of_user()
    if remove:
        freed = copies.remove(manifest)
        content: dict[str, object] = {"removed_bytes": freed}
        text = f"{format_bytes(freed)} freed"
    else:
        require_whole(folder, manifest, is_full=False)
        start = time.perf_counter()
        with show_progress() as progress:
            path = copies.make(folder, manifest, progress).parent
        size = sum(file.stat().st_size for file in path.iterdir())
        seconds = time.perf_counter() - start
        content = {"folder": str(path), "size_bytes": size, "seconds": seconds}
        text = f"{path}: {format_bytes(size)}, {seconds:.1f} s"
    click.echo(json.dumps(content, ensure_ascii=False) if is_json else text)
