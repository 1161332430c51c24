"""Chat templates by their names, as a checkpoint may have several.

transformers takes `tool_use` where there are tools and `default` otherwise. `combine_templates`
writes this choice into one template, so that every host with Jinja makes it.
"""

from collections.abc import Mapping
from pathlib import Path

from glm_runtime.errors import FolderError

TEMPLATE_NAME = "chat_template.jinja"
# All named templates of an exported folder, whose files have no folders.
NAMES_NAME = "chat_templates.json"
ADDED_FOLDER = "additional_chat_templates"
_DEFAULT, _TOOL_USE = "default", "tool_use"
# Stands for a missing default, without which transformers refuses the conversation, too.
_REFUSAL = (
    "{{ raise_exception('the model has several chat templates and none is the default; give "
    "tools if it has one for them, or choose a template by its name') }}"
)


def find_named_templates(folder: Path, tokenizer_config: Mapping[str, object]) -> dict[str, str]:
    """Return the Jinja sources of a folder's or a checkpoint's templates by their names.

    Files come first, as in transformers: `chat_template.jinja` is `default`, and
    `additional_chat_templates` has others. Without such files, `chat_template` of
    tokenizer_config.json is a text, an object, or a list of objects with `name` and `template`.

    Raises:
        FolderError: a file is not UTF-8.
        OSError: a file cannot be read.
    """
    paths = {path.stem: path for path in list_added_templates(folder)}
    if (folder / TEMPLATE_NAME).is_file():
        paths[_DEFAULT] = folder / TEMPLATE_NAME
    if paths:
        return {name: _read(path) for name, path in sorted(paths.items())}
    stored = tokenizer_config.get("chat_template")
    if isinstance(stored, list):
        entries = [entry for entry in stored if isinstance(entry, dict)]
        stored = {entry.get("name"): entry.get("template") for entry in entries}
    if isinstance(stored, str):
        stored = {_DEFAULT: stored}
    if not isinstance(stored, dict):
        return {}
    return {
        name: text
        for name, text in stored.items()
        if isinstance(name, str) and isinstance(text, str)
    }


def list_added_templates(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's other templates."""
    return sorted((folder / ADDED_FOLDER).glob("*.jinja"))


def combine_templates(named: Mapping[str, str]) -> str | None:
    """Return one template that chooses as transformers does; `None` if there are no templates.

    Without a `default` it refuses conversations that no other template is chosen for.
    """
    if not named:
        return None
    default = named.get(_DEFAULT, _REFUSAL)
    with_tools = named.get(_TOOL_USE, default)
    if with_tools == default:
        return default
    # The empty expressions keep white space at the borders, which Jinja removes beside blocks.
    guard = "{{ '' }}"
    return (
        f"{{% if tools is defined and tools is not none %}}{guard}{_end(with_tools)}{guard}"
        f"{{% else %}}{guard}{_end(default)}{guard}{{% endif %}}"
    )


def _end(source: str) -> str:
    """Remove one line end, as Jinja does at the end of a template."""
    return source.removesuffix("\n").removesuffix("\r")


def _read(path: Path) -> str:
    """Read a template without the byte order mark that some editors write before a text."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FolderError(
            f"{path} is not UTF-8 text ({error}); export the folder again."
        ) from error
