"""The small files beside the graph: tokenizer, template, configs, and what other hosts read.

Nothing here depends on the machine or the day: same checkpoint and options, same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_export import chat_table
from glm_export.architectures import DecoderConfig
from glm_export.checkpoint import INDEX_NAMES, Checkpoint, read_json
from glm_export.errors import CheckpointError
from glm_export.tokenizer_files import MODEL_NAME, choose_template, read_tokenizer_json
from glm_runtime.chat_template import TEMPLATE_NAME, ChatTemplate, find_special_tokens
from glm_runtime.errors import FolderError, HostileTemplateError, PromptError
from glm_runtime.tokenizer import TOKENIZER_NAME

# Keys that name folders of the machine a checkpoint was saved on.
_LOCAL_KEYS = ("_name_or_path", "name_or_path")
_SOURCE_NAMES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    TOKENIZER_NAME,
    MODEL_NAME,
    TEMPLATE_NAME,
)
# onnxruntime-genai's search settings that a generation_config.json may hold as well.
_SEARCH_KEYS = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "min_length")


@dataclass(frozen=True)
class TokenIds:
    """Token ids that end or pad a text, and how many ids the tokenizer has."""

    eos: tuple[int, ...]
    pad: int | None
    bos: int | None
    tokenizer_vocab_size: int


def read_token_ids(checkpoint: Checkpoint, config: DecoderConfig) -> TokenIds:
    """Ids from generation_config.json, or else config.json; the count from tokenizer.json.

    Raises:
        CheckpointError: no tokenizer.json, no eos anywhere, or ids beyond the vocabulary.
    """
    generation = _read_optional(checkpoint.folder / "generation_config.json")
    count = _count_tokens(checkpoint.folder, config.vocab_size)

    def read(key: str) -> tuple[int, ...]:
        value = generation.get(key)
        value = checkpoint.config.get(key) if value is None else value
        return _check_ids(key, value, config.vocab_size)

    eos, pad, bos = read("eos_token_id"), read("pad_token_id"), read("bos_token_id")
    if not eos:
        raise CheckpointError(
            "eos_token_id is missing, so answers would never end; "
            "add it to generation_config.json or config.json."
        )
    return TokenIds(eos, pad[0] if pad else None, bos[0] if bos else None, count)


def render_companions(
    checkpoint: Checkpoint, config: DecoderConfig, ids: TokenIds, threads: int | None
) -> dict[str, bytes]:
    """File name -> content of everything but the graph, the tokenizer, the card and the manifest.

    Raises:
        CheckpointError: a file of the checkpoint is broken.
    """
    generation = _read_optional(checkpoint.folder / "generation_config.json")
    tokenizer_config = _read_optional(checkpoint.folder / "tokenizer_config.json")
    contents: dict[str, Mapping[str, Any]] = {
        "config.json": checkpoint.config,
        "generation_config.json": {
            **generation,
            "eos_token_id": list(ids.eos),
            "pad_token_id": ids.pad,
        },
        "tokenizer_config.json": _adapt_tokenizer_config(tokenizer_config),
        "genai_config.json": build_genai_config(config, ids, generation, threads),
    }
    files = {name: _render_json(name, content) for name, content in contents.items()}
    template = _find_template(checkpoint.folder, tokenizer_config)
    if template is None:
        template = _encode(choose_template(checkpoint.folder))
    if template is None:
        return files
    _try_template(template.decode())
    return {**files, TEMPLATE_NAME: template, **_render_table(template.decode(), tokenizer_config)}


def list_source_files(checkpoint: Checkpoint) -> list[Path]:
    """Every file of a checkpoint that a folder depends on: weights, and what is small."""
    small = (checkpoint.folder / name for name in (*INDEX_NAMES, *_SOURCE_NAMES))
    return [*checkpoint.weight_files, *(path for path in small if path.is_file())]


def write_companions(folder: Path, checkpoint: Checkpoint, files: Mapping[str, bytes]) -> None:
    """Write what `render_companions` gave, and the tokenizer."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / TOKENIZER_NAME).write_bytes(read_tokenizer_json(checkpoint.folder))


def build_genai_config(
    config: DecoderConfig, ids: TokenIds, generation: Mapping[str, Any], threads: int | None
) -> dict[str, Any]:
    """What onnxruntime-genai needs to run the same folder.

    Threads belong to the machine that runs it, so they are written only when asked for.
    """
    options: dict[str, Any] = {"log_id": "glm-export", "provider_options": []}
    if threads is not None:
        options["intra_op_num_threads"] = threads
    cache = {
        f"{side}_{kind}_names": f"{prefix}.%d.{kind}"
        for side, prefix in (("past", "past_key_values"), ("present", "present"))
        for kind in ("key", "value")
    }
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    return {
        "model": {
            "type": "chatglm",
            "bos_token_id": ids.eos[0] if ids.bos is None else ids.bos,
            "eos_token_id": list(ids.eos),
            "pad_token_id": ids.eos[0] if ids.pad is None else ids.pad,
            "context_length": config.context_length,
            "vocab_size": config.vocab_size,
            "decoder": {
                "filename": "model.onnx",
                "head_size": config.head_dim,
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_heads,
                "num_hidden_layers": config.num_layers,
                "num_key_value_heads": config.num_kv_heads,
                "session_options": options,
                "inputs": inputs | {k: v for k, v in cache.items() if k.startswith("past")},
                "outputs": {"logits": "logits"}
                | {k: v for k, v in cache.items() if k.startswith("present")},
            },
        },
        "search": {
            "max_length": config.context_length,
            "past_present_share_buffer": True,
            **{k: generation[k] for k in _SEARCH_KEYS if generation.get(k) is not None},
        },
    }


def _adapt_tokenizer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rows are padded on the right, as the graph reads them; special tokens for transformers 4 too.

    Under `extra_special_tokens` transformers 5 lists what was `additional_special_tokens` before;
    4 expects names there, and 5 reads both.
    """
    adapted = {**config, "padding_side": "right"}
    if isinstance(adapted.get("extra_special_tokens"), list):
        adapted["additional_special_tokens"] = adapted.pop("extra_special_tokens")
    return adapted


def _find_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> bytes | None:
    """The chat template: a file of its own, or a key of tokenizer_config.json; UTF-8."""
    path = folder / TEMPLATE_NAME
    if path.is_file():
        try:
            content = path.read_bytes()
            content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{path.name} is not readable UTF-8 ({error}); download it again."
            ) from error
        return content
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several by name, as transformers 4 saved them
        named = [entry for entry in template if isinstance(entry, dict)]
        template = next((e.get("template") for e in named if e.get("name") == "default"), None)
    return _encode(template)


def _try_template(template: str) -> None:
    """Render one question; a template may refuse it, but neither be broken nor hostile."""
    try:
        ChatTemplate(template).render([{"role": "user", "content": "Hello"}])
    except HostileTemplateError as error:
        reason = str(error.__cause__ or error).rstrip(".")
        raise CheckpointError(
            f"the checkpoint's chat template does what no template may ({reason}); do not trust "
            f"where it comes from, or remove it (from {TEMPLATE_NAME} or tokenizer_config.json)."
        ) from error
    except PromptError:
        return  # it wants a system message, a tool or the like
    except FolderError as error:
        raise CheckpointError(
            "the checkpoint's chat template is no Jinja that can be compiled "
            f"({error.__cause__ or error}); correct it in {TEMPLATE_NAME} or tokenizer_config.json."
        ) from error


def _render_table(template: str, tokenizer_config: Mapping[str, Any]) -> dict[str, bytes]:
    """The template as a table for hosts without Jinja, if it can be written so."""
    if "strftime_now" in template:  # tells the date, which a table cannot
        return {}
    special_tokens = find_special_tokens(tokenizer_config)
    table = chat_table.build_chat_table(ChatTemplate(template, special_tokens))
    return {} if table is None else {chat_table.FILE_NAME: table.to_json()}


def _encode(template: object) -> bytes | None:
    if not isinstance(template, str):
        return None
    try:
        return template.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(
            f"the checkpoint's chat template is no UTF-8 ({error}); correct tokenizer_config.json."
        ) from error


def _count_tokens(folder: Path, vocab_size: int) -> int:
    """One more than the largest id of the tokenizer."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - slow to import

    content, name = read_tokenizer_json(folder), _name_tokenizer(folder)
    try:
        ids = Tokenizer.from_buffer(content).get_vocab(with_added_tokens=True)
        added = json.loads(content).get("added_tokens") or []
        said = {str(token["content"]): int(token["id"]) for token in added}
    except Exception as error:  # tokenizers has no class of its own
        raise CheckpointError(
            f"{name} is not what the tokenizers package loads ({error}); "
            "download it again, or save the tokenizer in its fast form."
        ) from error
    if not ids:
        raise CheckpointError(f"{name} has no tokens; download it again.")
    largest = max([*ids.values(), *said.values()])
    if largest >= vocab_size:
        raise CheckpointError(
            f"{name} has ids up to {largest} but config.json says vocab_size={vocab_size}; "
            "check that both come from the same revision."
        )
    wrong = [token for token, id_ in said.items() if ids.get(token) != id_]
    if wrong:  # the package gives the next id without a word
        raise CheckpointError(
            f"{name} says that {wrong[0]!r} has the id {said[wrong[0]]} where "
            f"{ids.get(wrong[0])} is next; check that it is of this checkpoint, or download it "
            "again."
        )
    return largest + 1


def _name_tokenizer(folder: Path) -> str:
    return TOKENIZER_NAME if (folder / TOKENIZER_NAME).is_file() else MODEL_NAME


def _check_ids(key: str, value: object, vocab_size: int) -> tuple[int, ...]:
    """One id, a list of ids or None, as a tuple."""
    ids = tuple(value) if isinstance(value, list) else () if value is None else (value,)
    if not all(type(i) is int and 0 <= i < vocab_size for i in ids):
        raise CheckpointError(
            f"{key} is {value!r}; ids below vocab_size={vocab_size} are expected: "
            "correct generation_config.json or config.json."
        )
    return ids


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _render_json(name: str, content: Mapping[str, Any]) -> bytes:
    kept = {key: value for key, value in content.items() if key not in _LOCAL_KEYS}
    try:
        text = json.dumps(kept, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False)
        return (text + "\n").encode()
    except ValueError as error:
        raise CheckpointError(
            f"{name} has a value that is not JSON in UTF-8 ({error}); correct it."
        ) from error
