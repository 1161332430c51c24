"""Tokens to text while they arrive: text comes out at whole characters only.

One Chinese character or emoji may be spread over several tokens; showing its bytes one by one
would show U+FFFD. Byte-level BPE (GLM's own) is decoded byte by byte, exactly and in constant time
per token; any other tokenizer through its `decode`, over a window of a few tokens.
"""

import codecs
from collections.abc import Set

import tokenizers
from tokenizers import decoders

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER_BYTES = 4  # RFC 3629, section 3


class StreamDecoder:
    """Decodes the tokens of one answer; special tokens give no text."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, special_ids: Set[int]) -> None:
        self._special_ids = special_ids
        is_byte_level = isinstance(tokenizer.decoder, decoders.ByteLevel)
        make = _ByteDecoder if is_byte_level else _WindowDecoder
        self._decoder: _ByteDecoder | _WindowDecoder = make(tokenizer)

    @property
    def is_complete(self) -> bool:
        """Whether no character is unfinished."""
        return self._decoder.is_complete

    def add(self, token: int) -> str:
        """Take one token; return the text that is complete now, often none."""
        return "" if token in self._special_ids else self._decoder.add(token)

    def flush(self) -> str:
        """Return what is left when no more tokens come, unfinished characters as U+FFFD."""
        return self._decoder.flush()


class _ByteDecoder:
    """Byte-level BPE: every character of a token's name stands for one byte."""

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
    """Any tokenizer: decode the last tokens with and without the new one, show the difference.

    The window begins at tokens already shown, since some decoders treat the first token of a text
    differently (SentencePiece drops its leading space).
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
        # An unfinished character has fewer tokens than bytes; a longer wait is for nothing.
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
    """GPT-2's table: printable Latin-1 bytes stand for themselves, the others follow from U+0100.

    Source: openai/gpt-2, encoder.py, bytes_to_unicode; tokenizers' ByteLevel uses the same.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table |= {chr(0x100 + i): byte for i, byte in enumerate(others)}
    return table


_BYTE_OF_CHARACTER = _byte_of_character()


def _name_to_bytes(name: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in name)
    except KeyError:  # an added token such as "<think>" with a space or Chinese: plain text
        return name.encode("utf-8")
