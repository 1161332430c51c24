"""Special token ids that end, pad and begin a text, and the number of ids of a tokenizer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.json_files import read_optional_json
from glm_export.errors import CheckpointError
from glm_export.model.architectures import DecoderConfig
from glm_export.tokenizer.files import MODEL_NAME, read_tokenizer_json
from glm_runtime.errors import panics_as_errors
from glm_runtime.text.tokenizer import TOKENIZER_NAME

# Where `modeling_chatglm.py` of ChatGLM3 and GLM-4-9B-chat stops, besides `</s>`.
_CHATGLM_STOPS = ("<|user|>", "<|observation|>")

_SAMPLE_TEXT = "Hello, 世界!\n 12345 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b"


@dataclass(frozen=True)
class TokenIds:
    """Special token ids of a model, and the number of ids of its tokenizer.

    Attributes:
        eos: ids that end an answer.
        pad: id of padding; `None` if the checkpoint names none.
        bos: id that begins a text; `None` if the checkpoint names none.
        tokenizer_vocab_size: number of ids of the tokenizer.
        names: texts of the tokenizer's special tokens by id.
    """

    eos: tuple[int, ...]
    pad: int | None
    bos: int | None
    tokenizer_vocab_size: int
    names: Mapping[int, str]


def read_token_ids(checkpoint: Checkpoint, config: DecoderConfig) -> TokenIds:
    """Read ids from generation_config.json or config.json, and their number from tokenizer.json.

    The configurations of ChatGLM3 name `</s>` alone, but the model's own code also stops at the
    tokens of roles; for the type `chatglm` these are added where the tokenizer has them.

    Raises:
        CheckpointError: tokenizer.json or eos_token_id is missing, or an id is too large.
    """
    generation = read_optional_json(checkpoint.folder / "generation_config.json")
    ids, special = _read_ids(checkpoint.folder, config.vocab_size)

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
    if checkpoint.config.get("model_type") == "chatglm":
        eos += tuple(ids[name] for name in _CHATGLM_STOPS if name in ids and ids[name] not in eos)
    return TokenIds(
        eos,
        pad=pad[0] if pad else None,
        bos=bos[0] if bos else None,
        tokenizer_vocab_size=max(ids.values()) + 1,
        names={id_: name for name, id_ in special.items()},
    )


def _read_ids(folder: Path, vocab_size: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the ids of all tokens of the tokenizer by their names, and those of special tokens."""
    from tokenizers import Tokenizer  # noqa: PLC0415 - slow to import

    content, name = read_tokenizer_json(folder), _name_tokenizer(folder)
    try:
        with panics_as_errors():
            tokenizer = Tokenizer.from_buffer(content)
            tokenizer.encode(_SAMPLE_TEXT)  # a pattern may be valid and still fail on every text
            ids = tokenizer.get_vocab(with_added_tokens=True)
        added = json.loads(content).get("added_tokens") or []
        said = {str(token["content"]): int(token["id"]) for token in added}
        special = {str(token["content"]) for token in added if token.get("special")}
    except Exception as error:  # tokenizers has no error class
        raise CheckpointError(
            f"{name} cannot be loaded by the tokenizers package ({error}); "
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
    if wrong:  # the package silently gives the next id
        raise CheckpointError(
            f"{name} says that {wrong[0]!r} has the id {said[wrong[0]]} where "
            f"{ids.get(wrong[0])} is next; check that it is of this checkpoint, or download it "
            "again."
        )
    return {**ids, **said}, {name: said[name] for name in special}


def _name_tokenizer(folder: Path) -> str:
    return TOKENIZER_NAME if (folder / TOKENIZER_NAME).is_file() else MODEL_NAME


def _check_ids(key: str, value: object, vocab_size: int) -> tuple[int, ...]:
    """Convert one id, a list of ids or None to a tuple."""
    ids = tuple(value) if isinstance(value, list) else () if value is None else (value,)
    if not all(type(i) is int and 0 <= i < vocab_size for i in ids):
        raise CheckpointError(
            f"{key} is {value!r}; ids below vocab_size={vocab_size} are expected: "
            "correct generation_config.json or config.json."
        )
    return ids
