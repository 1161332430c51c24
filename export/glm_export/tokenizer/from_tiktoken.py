"""Conversion of GLM-4's `tokenizer.model`, a tiktoken file, to tokenizer.json.

Each line of the file holds a token's bytes in base64 and its rank. tiktoken repeatedly joins the
two neighbours whose joined bytes have the lowest rank. This equals a BPE whose merges are all pairs
of tokens that form a token, ordered by its rank. A piece of text that is a token is not split.
Source: tiktoken's `_educational.py`; the pattern and the special tokens are those of GLM-4's
`tokenization_chatglm.py`.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from glm_export.errors import CheckpointError

_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Special tokens after the last rank, in this order, if tokenizer_config.json does not list them.
_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
_BYTES = 256


def is_tiktoken(content: bytes) -> bool:
    """Return True if a tokenizer.model is a tiktoken file; SentencePiece files are binary."""
    first, _, _ = content.partition(b"\n")
    parts = first.split()
    return len(parts) == 2 and parts[1].isdigit()


def convert_tiktoken(content: bytes, config: Mapping[str, Any]) -> str:
    """Convert a tokenizer.model to a tokenizer.json.

    Args:
        content: content of tokenizer.model.
        config: content of tokenizer_config.json, for `added_tokens_decoder`.

    Raises:
        CheckpointError: a line is broken, ranks are not 0, 1, 2 ..., a byte has no token, or an
            added token cannot get its id.
    """
    tokens = _read_tokens(content)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    letters = _spell_bytes()
    names = ["".join(letters[byte] for byte in token) for token in tokens]
    merges = [(names[left], names[right]) for left, right in _list_merges(tokens, ranks)]
    vocabulary = {name: rank for rank, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    add_tokens(tokenizer, read_added_tokens(config) or number_tokens(_SPECIAL_TOKENS, len(tokens)))
    return str(tokenizer.to_str())


def read_added_tokens(config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Read `added_tokens_decoder` of a tokenizer_config.json by id; empty if it is missing.

    Raises:
        CheckpointError: it is not in the format of transformers.
    """
    found = config.get("added_tokens_decoder") or {}
    try:
        return {
            int(id_): AddedToken(
                entry["content"],
                special=bool(entry.get("special", True)),
                normalized=bool(entry.get("normalized", False)),
                lstrip=bool(entry.get("lstrip", False)),
                rstrip=bool(entry.get("rstrip", False)),
                single_word=bool(entry.get("single_word", False)),
            )
            for id_, entry in found.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"tokenizer_config.json has an invalid added_tokens_decoder ({error!r}); "
            "download it again."
        ) from error


def add_tokens(tokenizer: Tokenizer, added: Mapping[int, AddedToken]) -> None:
    """Add tokens with their ids, which must follow the vocabulary's ids without a gap.

    Raises:
        CheckpointError: a token cannot get its id.
    """
    for id_ in sorted(added):
        tokenizer.add_tokens([added[id_]])
        found = tokenizer.token_to_id(added[id_].content)
        if found != id_:
            raise CheckpointError(
                f"tokenizer_config.json gives {added[id_].content!r} the id {id_} where "
                f"{found} is next; check that it and tokenizer.model are of one revision."
            )


def number_tokens(names: Sequence[str], first: int) -> dict[int, AddedToken]:
    """Number special tokens from `first` on."""
    tokens = [AddedToken(name, special=True, normalized=False) for name in names]
    return dict(enumerate(tokens, first))


def _read_tokens(content: bytes) -> list[bytes]:
    """Read the tokens in the order of their ranks."""
    tokens: list[bytes] = []
    for line in content.splitlines():
        try:
            encoded, written = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(written)
        except (ValueError, binascii.Error):
            token, rank = b"", -1
        if rank != len(tokens) or not token:
            raise CheckpointError(
                f"tokenizer.model has {line[:60]!r} in line {len(tokens) + 1} where a token in "
                f"base64 and its rank {len(tokens)} are expected; download it again."
            )
        tokens.append(token)
    missing = {bytes([byte]) for byte in range(_BYTES)}.difference(tokens)
    if missing or len(set(tokens)) != len(tokens):
        raise CheckpointError(
            "tokenizer.model lacks the token of some byte, or has a token twice; download it again."
        )
    return tokens


def _list_merges(tokens: Sequence[bytes], ranks: Mapping[bytes, int]) -> list[tuple[int, int]]:
    """Return all pairs of ranks whose bytes form a token, in the order of that token's rank."""
    found = []
    for token in tokens:
        pairs = ((token[:place], token[place:]) for place in range(1, len(token)))
        known = [(ranks[a], ranks[b]) for a, b in pairs if a in ranks and b in ranks]
        found += sorted(known)
    return found


def _spell_bytes() -> dict[int, str]:
    """Return ByteLevel's printable letter for each byte; a visible byte maps to itself.

    Source: OpenAI's GPT-2 `encoder.py`.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(_BYTES) if byte not in visible]
    letters = {byte: chr(byte) for byte in visible}
    return letters | {byte: chr(_BYTES + place) for place, byte in enumerate(hidden)}
