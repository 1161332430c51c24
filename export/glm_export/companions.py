"""The small files beside the graph: tokenizer, template, configs, and what other hosts read.

Nothing here depends on the machine or the day: same checkpoint and options, same bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm_export.architectures import DecoderConfig
from glm_export.checkpoint import Checkpoint, read_json
from glm_export.errors import CheckpointError

# Keys that name folders of the machine a checkpoint was saved on.
_LOCAL_KEYS = ("_name_or_path", "name_or_path")
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
    count = _count_tokens(checkpoint.folder / "tokenizer.json")
    if count > config.vocab_size:
        raise CheckpointError(
            f"tokenizer.json has ids up to {count - 1} but config.json says "
            f"vocab_size={config.vocab_size}; check that both come from the same revision."
        )

    def read(key: str) -> Any:
        value = generation.get(key)
        return checkpoint.config.get(key) if value is None else value

    eos = read("eos_token_id")
    ids = tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,)
    if not ids or not all(isinstance(i, int) and 0 <= i < config.vocab_size for i in ids):
        raise CheckpointError(
            f"eos_token_id is {eos!r}; ids below {config.vocab_size} are needed, "
            "in generation_config.json or config.json."
        )
    return TokenIds(ids, _read_id(read("pad_token_id")), _read_id(read("bos_token_id")), count)


def write_companions(
    folder: Path, checkpoint: Checkpoint, config: DecoderConfig, ids: TokenIds, threads: int | None
) -> None:
    """Write everything but the graph, the card and the manifest.

    Raises:
        CheckpointError: a file of the checkpoint cannot be read.
    """
    generation = _read_optional(checkpoint.folder / "generation_config.json")
    _write_json(folder / "config.json", _drop_local_keys(checkpoint.config))
    _write_json(
        folder / "generation_config.json",
        {**_drop_local_keys(generation), "eos_token_id": list(ids.eos), "pad_token_id": ids.pad},
    )
    tokenizer_config = _read_optional(checkpoint.folder / "tokenizer_config.json")
    _write_json(folder / "tokenizer_config.json", _drop_local_keys(tokenizer_config))
    tokenizer = (checkpoint.folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    template = _find_template(checkpoint.folder, tokenizer_config)
    if template is not None:
        (folder / "chat_template.jinja").write_bytes(template.encode())
    genai = build_genai_config(config, ids, generation, threads)
    _write_json(folder / "genai_config.json", genai)


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


def _find_template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path.name} is not UTF-8; download it again.") from error
    template = tokenizer_config.get("chat_template")
    return template if isinstance(template, str) else None


def _count_tokens(path: Path) -> int:
    """One more than the largest id in a tokenizer.json."""
    if not path.is_file():
        raise CheckpointError(
            f"no tokenizer.json in {path.parent}; save the tokenizer in its fast form first."
        )
    content = read_json(path)
    try:
        ids = [int(i) for i in content["model"]["vocab"].values()]
        ids += [int(token["id"]) for token in content.get("added_tokens", [])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"tokenizer.json has no vocabulary ({error}); get it again."
        ) from error
    return max(ids, default=-1) + 1


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _read_id(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _drop_local_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in _LOCAL_KEYS}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    path.write_bytes(text.encode())
