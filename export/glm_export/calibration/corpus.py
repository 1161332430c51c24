"""The calibration text as windows of token ids, which are the same on every machine.

The default, `data/calibration.jsonl`, is about half Chinese and shares no sentence with the
evaluation text. It holds chapters of the King James Bible (copyright expired), classical Chinese
poetry (out of copyright), conversations that recite both, and modern prose, code, mathematics and
conversations written for it (under this project's licence). `sample/calibration_text.py` selects
the old texts.
Read `documents.py` before.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from glm_export.calibration.documents import Conversation, Text, read_documents
from glm_export.errors import CheckpointError, OptionsError
from glm_export.even_sample import choose_evenly
from glm_export.tokenizer.files import choose_template, read_tokenizer_json
from glm_runtime.arrays import TokenArray
from glm_runtime.errors import FolderError, PromptError, panics_as_errors
from glm_runtime.text.chat_messages import ChatOptions
from glm_runtime.text.chat_template import ChatTemplate, read_chat_template
from glm_runtime.text.tokenizer import TOKENIZER_NAME, Tokenizer


@dataclass(frozen=True)
class Corpus:
    """A calibration text as tokens.

    Attributes:
        windows: [n, window] token ids.
        name: name of the file or folder; "default" is the text in the package, and "default, texts
            only" is that text without conversations, for a checkpoint without chat template.
        sha256: hash of the window length and the ids, as little-endian 64-bit numbers.
    """

    windows: TokenArray
    name: str
    sha256: str


def read_corpus(
    path: Path | None, folder: Path, window: int, max_tokens: int, vocab_size: int
) -> Corpus:
    """Read documents as token ids, join them, and cut them into windows; drop a shorter rest.

    Args:
        path: a .txt file (one document), a .jsonl file (one document a line, with `text`, or with
            `messages` and optional `tools`), or a folder of such files; None is the default text.
        folder: folder of the checkpoint, for its tokenizer and chat template.
        window: number of tokens in a window, at most the model's context.
        max_tokens: largest number of tokens; windows are evenly spaced over a longer text.
        vocab_size: vocabulary size of the model; each token id must be below it.

    Raises:
        OptionsError: the text is missing, broken or too short, or the template refuses it.
        CheckpointError: tokenizer or template are broken, or do not fit the model.
    """
    if not 1 <= window <= max_tokens:
        raise OptionsError(
            f"calibration windows of {window} tokens and at most {max_tokens} tokens in all leave "
            "nothing to read; choose windows of at least one token, and at least one window."
        )
    tokenizer = _read_tokenizer(folder)
    if path is None:
        encoded, has_template = _encode_default(folder, tokenizer)
    else:
        template, has_template = _read_template(folder), True
        encoded = [_encode(document, tokenizer, template) for document in read_documents(path)]
    ids = np.concatenate([np.zeros(0, np.int64), *encoded])
    if len(ids) < window:
        raise OptionsError(
            f"the calibration text {path or 'of the package'} has {len(ids)} tokens but one window "
            f"has {window}; give a longer text."
        )
    _require_known(ids, vocab_size)
    windows = _cut_windows(ids, window, max_tokens)
    return Corpus(windows, _name(path, has_template=has_template), _hash(windows))


def _encode_default(folder: Path, tokenizer: Tokenizer) -> tuple[list[TokenArray], bool]:
    """Encode the text in the package, and return whether it includes its conversations.

    They are left out if the checkpoint has no chat template, or if its template refuses them.
    """
    documents = list(read_documents(None))
    try:
        template = _read_template(folder)
        if template is not None:
            return [_encode(document, tokenizer, template) for document in documents], True
    except (OptionsError, CheckpointError):
        pass
    texts = [document for document in documents if isinstance(document, Text)]
    return [_encode(document, tokenizer, None) for document in texts], False


def _encode(
    document: Text | Conversation, tokenizer: Tokenizer, template: ChatTemplate | None
) -> TokenArray:
    """Encode one document; conversations are rendered without a generation prompt."""
    try:
        if isinstance(document, Text):
            text = document.text
        elif template is None:
            raise OptionsError(
                f"{document.place}: the checkpoint has no chat template to render `messages` with; "
                "give `text`, or add chat_template.jinja to the checkpoint."
            )
        else:
            options = ChatOptions(tuple(document.tools or ()))
            text = template.render(list(document.messages), options, is_answer_next=False)
        return np.array(tokenizer.encode(text), dtype=np.int64)
    except PromptError as error:
        raise OptionsError(
            f"{document.place}: this cannot be converted to tokens ({_cause(error)}); correct it, "
            "or the checkpoint's chat template."
        ) from error


def _cut_windows(ids: TokenArray, window: int, max_tokens: int) -> TokenArray:
    """Cut whole windows [n, window]; choose evenly spaced ones if there are too many tokens."""
    whole = len(ids) // window
    windows = ids[: whole * window].reshape(whole, window)
    return windows[choose_evenly(whole, max_tokens // window)]


def _require_known(ids: TokenArray, vocab_size: int) -> None:
    largest = int(ids.max())
    if largest >= vocab_size:
        raise CheckpointError(
            f"{TOKENIZER_NAME} gives the id {largest} but config.json says "
            f"vocab_size={vocab_size}; check that both come from the same revision."
        )


def _read_tokenizer(folder: Path) -> Tokenizer:
    content = read_tokenizer_json(folder)
    try:
        with panics_as_errors():
            return Tokenizer(tokenizers.Tokenizer.from_buffer(content))
    except Exception as error:  # tokenizers has no error class
        raise CheckpointError(
            f"{TOKENIZER_NAME} cannot be loaded by the tokenizers package ({_cause(error)}); "
            "download it again, or save the tokenizer in its fast form."
        ) from error


def _read_template(folder: Path) -> ChatTemplate | None:
    try:
        found = read_chat_template(folder)
        released_without = None if found else choose_template(folder)
        return found if released_without is None else ChatTemplate(released_without)
    except (FolderError, OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"the chat template of {folder} cannot be read ({_cause(error)}); download it again."
        ) from error


def _cause(error: Exception) -> str:
    """Return another program's message on one line, without the runtime's advice for folders."""
    return " ".join(str(error.__cause__ or error).split())


def _name(path: Path | None, *, has_template: bool) -> str:
    """Name the text without the folders above, which differ between machines."""
    if path is None:
        return "default" if has_template else "default, texts only"
    own_name = Path(os.path.abspath(path)).name  # noqa: PTH100 - no links
    return own_name.encode("utf-8", "replace").decode("utf-8")


def _hash(windows: TokenArray) -> str:
    length = np.array(windows.shape[1])
    content = length.astype("<i8").tobytes() + windows.astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()
