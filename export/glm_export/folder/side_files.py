"""The small files of a folder: tokenizer, chat template, and configurations for other hosts.

Their bytes depend on the checkpoint and the options only, not on the machine or the date.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.json_files import read_optional_json
from glm_export.checkpoint.quantization_settings import SETTINGS_FILES
from glm_export.checkpoint.source_model import SourceModel
from glm_export.errors import CheckpointError
from glm_export.folder import genai_config
from glm_export.folder.genai_config import build_genai_config
from glm_export.folder.model_config import build_model_config
from glm_export.folder.recommended_sampling import recommend_sampling
from glm_export.model.architectures import DecoderConfig
from glm_export.plan.options import ExportOptions
from glm_export.tokenizer import chat_table
from glm_export.tokenizer.chat_table import ChatTable
from glm_export.tokenizer.chat_table_guess import build_chat_table
from glm_export.tokenizer.chat_table_jinja import write_jinja
from glm_export.tokenizer.files import MODEL_NAME, choose_template, read_tokenizer_json
from glm_export.tokenizer.token_ids import TokenIds
from glm_runtime.errors import FolderError, HostileTemplateError, PromptError, to_printable
from glm_runtime.sampling.settings import GENERATION_CONFIG_NAME
from glm_runtime.text.chat_template import (
    TEMPLATE_NAME,
    ChatTemplate,
    find_special_tokens,
)
from glm_runtime.text.named_templates import (
    ADDED_FOLDER,
    NAMES_NAME,
    combine_templates,
    find_named_templates,
    list_added_templates,
)
from glm_runtime.text.tokenizer import TOKENIZER_NAME

# Keys that hold folders of the machine on which the checkpoint was saved.
_LOCAL_KEYS = ("_name_or_path", "name_or_path")
# Keys that name the checkpoint's code and weight files, which the folder does not hold.
_FILE_KEYS = ("auto_map", "transformers_weights")
_TOKENIZER_CLASS = "PreTrainedTokenizerFast"
_INPUT_NAMES = ["input_ids", "attention_mask"]  # by default the class adds token_type_ids
_SOURCE_NAMES = (
    "config.json",
    *SETTINGS_FILES,
    GENERATION_CONFIG_NAME,
    "tokenizer_config.json",
    TOKENIZER_NAME,
    MODEL_NAME,
    TEMPLATE_NAME,
)


def render_side_files(
    checkpoint: Checkpoint, config: DecoderConfig, ids: TokenIds, options: ExportOptions
) -> dict[str, bytes]:
    """Render all files except the graph, the tokenizer, the model card and the manifest, by name.

    Raises:
        CheckpointError: a file of the checkpoint is broken.
    """
    generation = read_optional_json(checkpoint.folder / GENERATION_CONFIG_NAME)
    tokenizer_config = _name_special_tokens(
        read_optional_json(checkpoint.folder / "tokenizer_config.json"), ids
    )
    template_files, plain = _render_templates(checkpoint.folder, tokenizer_config)
    generation |= recommend_sampling(
        generation,
        checkpoint.config.get("model_type"),
        template_files.get(TEMPLATE_NAME, b"").decode() or None,
    )
    contents: dict[str, Mapping[str, Any]] = {
        "config.json": build_model_config(checkpoint.config, config, ids),
        GENERATION_CONFIG_NAME: {
            **generation,
            "eos_token_id": list(ids.eos),
            "pad_token_id": ids.pad,
        },
        "tokenizer_config.json": _adapt_tokenizer_config(tokenizer_config, plain),
        genai_config.FILE_NAME: build_genai_config(config, ids, generation, options),
    }
    files = {name: _render_json(name, content) for name, content in contents.items()}
    return files | template_files


def _render_templates(
    folder: Path, tokenizer_config: Mapping[str, Any]
) -> tuple[dict[str, bytes], str | None]:
    """Render the files of the chat template, and return the template for onnxruntime-genai."""
    named = _find_templates(folder, tokenizer_config)
    template = combine_templates(named)
    if template is None:
        return {}, None
    content = _encode(template)
    _try_template(template)
    files = {TEMPLATE_NAME: content}
    if set(named) != {"default"}:
        files[NAMES_NAME] = _render_json(NAMES_NAME, named)
    table = _build_table(template, tokenizer_config)
    if table is None:
        return files, None
    plain = write_jinja(table)
    return {**files, chat_table.FILE_NAME: table.to_json(plain)}, plain


def list_chat_notes(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Say what the folder's chat template cannot do, from the contents of `render_side_files`."""
    notes = []
    names = json.loads(files.get(NAMES_NAME, b"{}"))
    if names and "default" not in names:
        notes.append(
            f"none of the chat templates ({to_printable(', '.join(names))}) is the default, so a "
            "conversation needs the name of a template, or tools for tool_use."
        )
    if TEMPLATE_NAME in files and chat_table.FILE_NAME not in files:
        notes.append(
            f"the chat template cannot be written as a table ({chat_table.FILE_NAME}), so the C "
            "and C++ runtime cannot render messages and takes whole prompts only."
        )
    return tuple(notes)


def list_sampling_notes(checkpoint: Checkpoint, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Say which sampling was written that the checkpoint does not have."""
    generation = read_optional_json(checkpoint.folder / GENERATION_CONFIG_NAME)
    written = json.loads(files[GENERATION_CONFIG_NAME])
    if written.get("temperature") == generation.get("temperature"):
        return ()
    return (
        f"{GENERATION_CONFIG_NAME} says nothing about sampling, so the settings of GLM-Z1's card "
        f"are written: temperature {written['temperature']}, top_p {written['top_p']}, top_k "
        f"{written['top_k']}.",
    )


def list_source_files(source: SourceModel) -> dict[str, Path]:
    """List every file that a folder depends on, by name; `ADAPTER/FILE` for those of adapters."""
    known = source.states.by_path
    return {name: path for name, path in _name_sources(source).items() if path in known}


def require_unchanged_sources(source: SourceModel) -> None:
    """Refuse a checkpoint that is not the one that was opened, after everything is read.

    Raises:
        CheckpointError: a file was changed, replaced, added or removed.
    """
    source.states.require_unchanged(_name_sources(source).values())


def _name_sources(source: SourceModel) -> dict[str, Path]:
    checkpoint = source.checkpoint
    paths = [*checkpoint.weight_files, *(checkpoint.folder / name for name in _SOURCE_NAMES)]
    if checkpoint.files.index is not None:
        paths.append(checkpoint.files.index)
    named = {path.name: path for path in paths}
    added = checkpoint.folder / ADDED_FOLDER
    known = (path for path in source.states.by_path if path.parent == added)  # maybe removed since
    for path in {*known, *list_added_templates(checkpoint.folder)}:
        named[f"{ADDED_FOLDER}/{path.name}"] = path
    for adapter in source.adapters:
        named |= adapter.files
    return named


def write_side_files(folder: Path, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
    """Write the files of `render_side_files`, and the tokenizer."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / TOKENIZER_NAME).write_bytes(read_tokenizer_json(checkpoint.folder))


def _name_special_tokens(config: Mapping[str, Any], ids: TokenIds) -> dict[str, Any]:
    """Add `eos_token` and `pad_token` where they are missing.

    The code of ChatGLM's tokenizer names them, which the folder does not have. transformers.js
    cannot pad a batch without a padding token; any token can be it, because padding is masked.
    """
    eos, pad = ids.eos[0], ids.eos[0] if ids.pad is None else ids.pad
    names = {"eos_token": ids.names.get(eos), "pad_token": ids.names.get(pad)}
    missing = {key: name for key, name in names.items() if config.get(key) is None and name}
    return {**config, **missing}


def _adapt_tokenizer_config(config: Mapping[str, Any], plain: str | None) -> dict[str, Any]:
    """Write the keys as all hosts read them.

    The folder has tokenizer.json and none of the checkpoint's code, so that the class must be the
    one that reads tokenizer.json. transformers 5 names it `TokenizersBackend`, which 4 does not
    know. 5 writes the list `additional_special_tokens` as `extra_special_tokens`, where 4 expects
    names; 5 reads both keys. onnxruntime-genai takes
    `chat_template` of this file before chat_template.jinja and reads a part of Jinja only, so that
    the plain template of the chat table stands here; all other hosts take the file first.
    """
    adapted = {"model_input_names": _INPUT_NAMES, **config, "tokenizer_class": _TOKENIZER_CLASS}
    if isinstance(adapted.get("extra_special_tokens"), list):
        adapted["additional_special_tokens"] = adapted.pop("extra_special_tokens")
    if plain is not None:
        adapted["chat_template"] = plain
    elif not isinstance(adapted.get("chat_template"), str):  # genai refuses a list
        adapted.pop("chat_template", None)
    return adapted


def _find_templates(folder: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Return the checkpoint's chat templates by name, or that for a converted tokenizer."""
    try:
        named = find_named_templates(folder, tokenizer_config)
    except FolderError as error:
        raise CheckpointError(
            f"{TEMPLATE_NAME} is not readable UTF-8 ({error.__cause__ or error}); save it as UTF-8 "
            "text, or download it again."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"the chat template {error.filename} cannot be read ({error.strerror}); check its "
            "permissions."
        ) from error
    _require_whole(tokenizer_config.get("chat_template"), named)
    chosen = None if named else choose_template(folder)
    return named if chosen is None else {"default": chosen}


def _require_whole(stored: object, named: Mapping[str, str]) -> None:
    """Refuse templates of tokenizer_config.json that were passed over without a file."""
    expected = len(stored) if isinstance(stored, list | dict) else int(stored is not None)
    if len(named) < expected:
        raise CheckpointError(
            f"tokenizer_config.json says chat_template={stored!r:.80}, where a text, or a list of "
            "objects with `name` and `template`, is expected; correct it, or remove that line."
        )


def _try_template(template: str) -> None:
    """Render one question. The template may refuse it, but must not be broken or hostile."""
    try:
        ChatTemplate(template).render([{"role": "user", "content": "Hello"}])
    except HostileTemplateError as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise CheckpointError(
            f"the checkpoint's chat template does something that is not allowed ({reason}); do not "
            f"trust its source, or remove it (from {TEMPLATE_NAME} or tokenizer_config.json)."
        ) from error
    except PromptError:
        return  # it needs other messages, for example a system message
    except FolderError as error:
        raise CheckpointError(
            "the checkpoint's chat template is not Jinja that can be compiled "
            f"({error.__cause__ or error}); correct it in {TEMPLATE_NAME} or tokenizer_config.json."
        ) from error


def _build_table(template: str, tokenizer_config: Mapping[str, Any]) -> ChatTable | None:
    """Build the chat table for hosts without Jinja, if the template can be a table."""
    if "strftime_now" in template:  # a table cannot render the date
        return None
    return build_chat_table(ChatTemplate(template, find_special_tokens(tokenizer_config)))


def _encode(template: str) -> bytes:
    try:
        return template.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"the checkpoint's chat template is not UTF-8 ({error}); correct tokenizer_config.json."
        ) from error


def _render_json(name: str, content: Mapping[str, Any]) -> bytes:
    kept = {key: value for key, value in content.items() if key not in (*_LOCAL_KEYS, *_FILE_KEYS)}
    try:
        text = json.dumps(kept, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
        return (text + "\n").encode()
    except ValueError as error:
        raise CheckpointError(
            f"{name} has a value that is not JSON in UTF-8 ({error}); correct it."
        ) from error
