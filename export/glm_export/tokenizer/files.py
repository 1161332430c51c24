"""tokenizer.json of a checkpoint, which may have to be converted from tokenizer.model.

It also holds the chat templates of models that were released without one.
"""

from codecs import BOM_UTF8
from functools import lru_cache
from pathlib import Path

from glm_export.checkpoint.json_files import describe_content, read_json
from glm_export.errors import CheckpointError
from glm_export.tokenizer.from_sentencepiece import BARE_START, convert_sentencepiece
from glm_export.tokenizer.from_tiktoken import convert_tiktoken, is_tiktoken, read_added_tokens
from glm_runtime.text.chat_template import TEMPLATE_NAME
from glm_runtime.text.tokenizer import TOKENIZER_NAME

MODEL_NAME = "tokenizer.model"
_CONFIG_NAME = "tokenizer_config.json"
_CODE_NAME = "tokenization_chatglm.py"  # is read, never run
_FIRST_TURN = "{% if loop.first %}[gMASK]<sop>{% endif %}"
_ASSISTANT = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
# Source: `tokenization_chatglm.py` of GLM-4-9B-chat, of ChatGLM3, whose SentencePiece model needs a
# space at the start of a message, and of ChatGLM2, which numbers the rounds.
_GLM4_TEMPLATE = (
    "{% for message in messages %}"
    + _FIRST_TURN
    + "<|{{ message.role }}|>{{ message.metadata or '' }}\n{{ message.content }}{% endfor %}"
    + _ASSISTANT
)
_CHATGLM3_TEMPLATE = (
    "{% for message in messages %}"
    + _FIRST_TURN
    + "<|{{ message.role }}|>{{ message.metadata or '' }}\n {{ message.content }}{% endfor %}"
    + _ASSISTANT
)
_CHATGLM2_TEMPLATE = (
    "[gMASK]<sop>{% set ns = namespace(round=0) %}{% for message in messages %}"
    "{% if message.role == 'user' %}{% set ns.round = ns.round + 1 %}"
    "[Round {{ ns.round }}]\n\n问：{{ message.content }}\n\n答："
    "{% elif message.role == 'assistant' %}{{ message.content }}\n\n"
    "{% else %}{{ raise_exception('ChatGLM2 knows no role ' ~ message.role) }}"
    "{% endif %}{% endfor %}"
)


def read_tokenizer_json(folder: Path) -> bytes:
    """Return the content of tokenizer.json, converted from tokenizer.model if it is missing.

    Raises:
        CheckpointError: both files are missing, or one is broken.
        UnsupportedModelError: this kind of tokenizer.model cannot be converted.
        MissingPackageError: the conversion needs a package that is not installed.
    """
    path = folder / TOKENIZER_NAME
    try:
        if path.is_file():
            content = _require_content(path)
            return content.removeprefix(BOM_UTF8)  # the tokenizers package refuses it
        model = folder / MODEL_NAME
        if not model.is_file():
            raise CheckpointError(
                f"there is no {TOKENIZER_NAME} and no {MODEL_NAME} in {folder}; "
                "save the tokenizer in its fast form (tokenizer.json) first."
            )
        config = folder / _CONFIG_NAME
        settings = config.read_bytes() if config.is_file() else b""
        return _convert(_require_content(model), settings, folder)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read ({error.strerror}); check its permissions."
        ) from error


def _require_content(path: Path) -> bytes:
    """Read a tokenizer; both kinds come through git-lfs, which may have left a pointer."""
    content = path.read_bytes()
    if content[:1] in (b"", b"v", b"<") and describe_content(content):
        raise CheckpointError(
            f"{path.name} is not a tokenizer ({describe_content(content)}); download it again."
        )
    return content


@lru_cache(maxsize=2)  # called by the plan, the calibration and the writer
def _convert(model: bytes, settings: bytes, folder: Path) -> bytes:
    config = read_json(folder / _CONFIG_NAME) if settings else {}
    if is_tiktoken(model):
        return convert_tiktoken(model, config).encode()
    return convert_sentencepiece(
        model,
        has_roles=_has_roles(folder),
        has_bare_start=_has_bare_start(folder),
        config=config,
    ).encode()


def choose_template(folder: Path) -> str | None:
    """Return the chat template of a checkpoint whose tokenizer is converted, else None."""
    model = folder / MODEL_NAME
    if (folder / TOKENIZER_NAME).is_file() or not model.is_file():
        return None
    if is_tiktoken(model.read_bytes()):
        return _GLM4_TEMPLATE
    template = _CHATGLM3_TEMPLATE if _has_roles(folder) else _CHATGLM2_TEMPLATE
    return template.replace("<sop>", BARE_START) if _has_bare_start(folder) else template


def _has_roles(folder: Path) -> bool:
    """Tell ChatGLM3 from ChatGLM2: its tokenizer code names special tokens for roles."""
    paths = [folder / name for name in (_CODE_NAME, _CONFIG_NAME)]
    return any(path.is_file() and b"<|assistant|>" in path.read_bytes() for path in paths)


def _has_bare_start(folder: Path) -> bool:
    """Return True if the checkpoint writes `sop` without brackets, as ChatGLM3's template does."""
    config = read_json(folder / _CONFIG_NAME) if (folder / _CONFIG_NAME).is_file() else {}
    if any(token.content == BARE_START for token in read_added_tokens(config).values()):
        return True
    template = folder / TEMPLATE_NAME
    texts = [str(config.get("chat_template"))]
    if template.is_file():
        texts.append(template.read_text(encoding="utf-8", errors="replace"))
    return any(f"[gMASK]{BARE_START}" in text for text in texts)
