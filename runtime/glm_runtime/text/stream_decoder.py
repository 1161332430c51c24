"""Decodes tokens to text while they arrive; only complete characters come out.

A Chinese character or an emoji may consist of several tokens, and incomplete bytes would show as
U+FFFD. Byte-level BPE, which GLM uses, is decoded byte by byte, exactly and in constant time per
token. Other tokenizers are decoded with their `decode` over a window of a few tokens.
"""

import codecs
import re
from collections.abc import Set

import tokenizers
from tokenizers import decoders

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER_BYTES = 4  # RFC 3629, section 3
# SentencePiece writes a blank and single bytes in these ways.
_BLANK, _BYTE_NAME = "\N{LOWER ONE EIGHTH BLOCK}", re.compile("<0x([0-9A-F]{2})>")


class StreamDecoder:
    """Decodes the tokens of one answer; special tokens give no text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, special_ids: Set[int]) -> None:
        self._special_ids = special_ids
        is_byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
        make = _ByteDecoder if is_byte_level else _WindowDecoder
        self._decoder: _ByteDecoder | _WindowDecoder = make(tokenizer)

    @property
    def is_complete(self) -> bool:
        """Whether the text so far ends at a complete character."""
        return self._decoder.is_complete

    def add(self, token: int) -> str:
        """Take one token; return the text that it completes."""
        return "" if token in self._special_ids else self._decoder.add(token)

    def flush(self) -> str:
        """Return the rest at the end of the answer, with incomplete characters as U+FFFD."""
        return self._decoder.flush()


class _ByteDecoder:
    """Decodes byte-level BPE, where every character of a token's name stands for one byte."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def is_complete(self) -> bool:
        return not self._utf8.getstate()[0]

    def add(self, token: int) -> str:
        name = self._tokenizer.id_to_token(token)
        return "" if name is None else self._utf8.decode(_name_to_bytes(name))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class _WindowDecoder:
    """Decodes the last tokens of any tokenizer with and without the new one; the rest is new.

    The window includes tokens whose text is already out, because some decoders treat the first
    token differently: SentencePiece drops its leading space.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._shown: list[int] = []
        self._pending: list[int] = []

    @property
    def is_complete(self) -> bool:
        return not self._pending

    def add(self, token: int) -> str:
        self._pending.append(token)
        text = self._pending_text()
        # A character has at most four bytes, so more tokens cannot complete it.
        is_unfinished = text.endswith(_REPLACEMENT)
        if is_unfinished and len(self._pending) < _LONGEST_CHARACTER_BYTES:
            return ""
        self._shown, self._pending = self._pending, []
        return text

    def flush(self) -> str:
        text = self._pending_text()
        self._shown, self._pending = self._pending, []
        return text

    def _pending_text(self) -> str:
        before = self._tokenizer.decode(self._shown, skip_special_tokens=False)
        window = self._shown + self._pending
        return self._tokenizer.decode(window, skip_special_tokens=False)[len(before) :]


def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's table: printable Latin-1 stands for itself, other bytes from U+0100 on.

    Source: openai/gpt-2, encoder.py, bytes_to_unicode; tokenizers' ByteLevel uses the same.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return table


_BYTE_OF_CHARACTER = _byte_of_character()


def read_token_bytes(tokenizer: tokenizers.Tokenizer, token: int) -> bytes:
    """Return the bytes that a token stands for, which may be a part of a character."""
    name = tokenizer.id_to_token(token) or ""
    if isinstance(tokenizer.decoder, decoders.ByteLevel):
        return _name_to_bytes(name)
    byte = _BYTE_NAME.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace(_BLANK, " ").encode("utf-8")


def _name_to_bytes(name: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in name)
    except KeyError:  # an added token, whose name is plain text
        return name.encode("utf-8")
