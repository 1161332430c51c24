"""Text to token ids and back, by the checkpoint's `tokenizer.json`.

No special tokens are added, because a rendered chat template contains them. Read
`stream_decoder.py` for decoding tokens while they arrive.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers

from glm_runtime.errors import FolderError, PromptError, panics_as_errors
from glm_runtime.text.control_marks import ControlMarks, has_marks
from glm_runtime.text.stream_decoder import StreamDecoder, read_token_bytes

if TYPE_CHECKING:
    import llguidance

TOKENIZER_NAME = "tokenizer.json"


class Tokenizer:
    """The tokenizer of one folder.

    Attributes:
        special_ids: ids of the special tokens, which have no text in an answer.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self._added = inner.get_added_tokens_decoder()
        self.special_ids = frozenset(id_ for id_, token in self._added.items() if token.special)
        self._tokens_with: dict[tuple[str, ...], frozenset[int]] = {(): frozenset()}
        self._grammar_vocabularies: dict[tuple[int, ...], llguidance.LLTokenizer] = {}

    def find_id(self, text: str) -> int | None:
        """Return the id of a token by its name; `None` if there is no such token."""
        id_: int | None = self._inner.token_to_id(text)
        return id_

    def is_special(self, text: str) -> bool:
        """Return whether a text is the name of a special token."""
        return self.find_id(text) in self.special_ids

    def find_tokens_with(self, texts: Sequence[str]) -> frozenset[int]:
        """Return the ids of all tokens whose text contains one of `texts`; results are cached."""
        key = tuple(texts)
        if key not in self._tokens_with:
            ids = range(self._inner.get_vocab_size(with_added_tokens=True))
            decoded = self._inner.decode_batch([[id_] for id_ in ids], skip_special_tokens=False)
            self._tokens_with[key] = frozenset(
                id_ for id_, one in enumerate(decoded) if any(text in one for text in key)
            )
        return self._tokens_with[key]

    def grammar_vocabulary(
        self, vocab_size: int, eos_token_ids: Sequence[int]
    ) -> "llguidance.LLTokenizer":
        """Return the vocabulary for llguidance; made once, in 0.3 s for 150,000 tokens.

        Args:
            vocab_size: number of logits.
            eos_token_ids: the end-of-sequence ids.
        """
        key = (vocab_size, *eos_token_ids)
        if key not in self._grammar_vocabularies:
            import llguidance  # noqa: PLC0415  # an optional package

            self._grammar_vocabularies[key] = llguidance.LLTokenizer(
                self._inner.to_str(), n_vocab=vocab_size, eos_token=list(eos_token_ids) or None
            )
        return self._grammar_vocabularies[key]

    @cached_property
    def control_marks(self) -> ControlMarks:
        """Marks for the names of all added tokens, which would become control tokens."""
        return ControlMarks([token.content for token in self._added.values()])

    def encode_marked(self, text: str) -> list[int]:
        """Return the ids of a prompt in which `control_marks` marked what is plain text."""
        if not has_marks(text):
            return self.encode(text)
        names = {token.content: id_ for id_, token in self._added.items()}
        ids: list[int] = []
        for is_control, part in self.control_marks.divide(text):
            ids += [names[part]] if is_control else self._encode_plain(part)
        return ids

    def encode(self, text: str, *, adds_special_tokens: bool = False) -> list[int]:
        """Return the ids of a text; the names of special tokens in it become their ids.

        Args:
            text: the text.
            adds_special_tokens: whether the tokenizer adds the tokens with which it is used in
                transformers, such as `[gMASK]<sop>` at the beginning; not all tokenizers have some.

        Raises:
            PromptError: the text has half a surrogate pair, as undecodable input does, or the
                tokenizer's pattern fails on it, as on ten million blanks in a row.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise PromptError(
                f"the prompt is not valid Unicode where UTF-8 text is expected ({error}); "
                "check the encoding of the terminal or file it comes from."
            ) from error
        try:
            with panics_as_errors():
                return list(self._inner.encode(text, add_special_tokens=adds_special_tokens).ids)
        except RuntimeError as error:
            raise PromptError(
                f"the tokenizer fails on this text of {len(text)} characters ({error}); shorten "
                "it, or break long runs of one character."
            ) from error

    def _encode_plain(self, text: str) -> list[int]:
        """Encode without a search for added tokens, by the steps of the tokenizer after it."""
        if self._inner.normalizer is not None:
            text = self._inner.normalizer.normalize_str(text) if text else ""
        pieces = [text]
        if self._inner.pre_tokenizer is not None:
            pieces = [piece for piece, _ in self._inner.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for piece in pieces for token in self._inner.model.tokenize(piece)]

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, without special tokens."""
        return self._inner.decode(ids, skip_special_tokens=True)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of one token; special tokens have those of their names."""
        return read_token_bytes(self._inner, token)

    def stream(self) -> StreamDecoder:
        """Return a decoder for tokens that arrive one by one."""
        return StreamDecoder(self._inner, self.special_ids)


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`.

    Raises:
        FolderError: the file is missing, or the tokenizers package refuses it.
    """
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        raise FolderError(f"{path} is missing; export the folder again.")
    try:
        with panics_as_errors():
            return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises plain Exception
        raise FolderError(
            f"{path} cannot be read ({error}); export the folder again, "
            "or upgrade with `pip install --upgrade tokenizers`."
        ) from error
