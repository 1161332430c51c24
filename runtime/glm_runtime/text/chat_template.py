"""Messages to prompt text, by the checkpoint's own Jinja template, byte for byte as transformers.

The template comes from strangers, so it runs in the sandbox of `template_sandbox.py`. Knows nothing
about tokens. Reference: `transformers.utils.chat_template_utils` (transformers 5).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.meta
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser

from glm_runtime.errors import FolderError, HostileTemplateError, PromptError, first_line
from glm_runtime.text.chat_messages import (
    ChatOptions,
    Message,
    TemplateWords,
    adapt_messages,
)
from glm_runtime.text.template_sandbox import BoundedSandbox, new_steps

TEMPLATE_NAME = "chat_template.jinja"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"


class ChatTemplate:
    """A compiled chat template, with the special tokens it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, object] | None = None) -> None:
        """Compile.

        Raises:
            FolderError: the template is not valid Jinja.
        """
        self._special_tokens = dict(special_tokens or {})
        environment = _make_environment()
        try:
            self._words = _find_words(environment.parse(source))
            self._template = environment.from_string(environment.parse_bounded(source))
        # Python's own limits are those of what Jinja compiles a template to.
        except (
            jinja2.TemplateError,
            SyntaxError,
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:
            raise FolderError(
                f"{TEMPLATE_NAME} is not a valid Jinja template ({error}); "
                "correct it in the checkpoint and export again."
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        options: ChatOptions | None = None,
        *,
        is_answer_next: bool = True,
    ) -> str:
        """Render a conversation.

        Args:
            messages: `{"role": ..., "content": ...}` each, in order, as OpenAI's clients write
                them.
            options: tools, and whether to think.
            is_answer_next: end with the template's generation prompt.

        Raises:
            PromptError: the template refuses the messages.
            HostileTemplateError: it does what no template may.
        """
        options = options or ChatOptions()
        try:
            return self._template.render(
                **self._special_tokens,
                **options.variables,
                **new_steps(),
                messages=adapt_messages(messages, options.tools, self._words),
                tools=list(options.tools) or None,
                documents=None,
                add_generation_prompt=is_answer_next,
            )
        except PromptError:
            raise
        except SecurityError as error:
            reason = first_line(error).rstrip(".")
            raise HostileTemplateError(
                f"the model's chat template does what no template may ({reason}); "
                "do not trust where it comes from, or give the text itself with --raw."
            ) from error
        # A template can fail in any way that an expression can.
        except Exception as error:
            raise PromptError(
                f"the model's chat template refuses these messages ({first_line(error)}); "
                "check their roles and contents, or give the text itself with --raw."
            ) from error


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """Read the template of a folder; `None` when it has none, as base models do.

    Raises:
        FolderError: a file cannot be read, or the template is not valid Jinja.
    """
    config = _read_tokenizer_config(folder / TOKENIZER_CONFIG_NAME)
    source = find_template_source(folder, config)
    return None if source is None else ChatTemplate(source, find_special_tokens(config))


def find_template_source(folder: Path, tokenizer_config: Mapping[str, object]) -> str | None:
    """Return the Jinja source of a folder's or a checkpoint's template; `None` if it has none.

    The file `chat_template.jinja` comes first, then `chat_template` of tokenizer_config.json: a
    text, or a list of named templates, of which `default` is taken.

    Raises:
        FolderError: the file is not UTF-8.
        OSError: the file cannot be read.
    """
    path = folder / TEMPLATE_NAME
    if path.is_file():
        try:
            return path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FolderError(
                f"{path} is not UTF-8 text ({error}); export the folder again."
            ) from error
    source = tokenizer_config.get("chat_template")
    if isinstance(source, list):
        named = [entry for entry in source if isinstance(entry, dict)]
        source = next((e.get("template") for e in named if e.get("name") == "default"), None)
    return source if isinstance(source, str) else None


def _read_tokenizer_config(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderError(f"{path} is not JSON ({error}); export the folder again.") from error
    return config if isinstance(config, dict) else {}


def find_special_tokens(config: Mapping[str, object]) -> dict[str, object]:
    """Collect `bos_token`, `eos_token` and so on, each written as text or as an object."""
    tokens: dict[str, object] = {}
    for key, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            tokens[key] = text
    return tokens


def _find_words(template: jinja2.nodes.Template) -> TemplateWords:
    """What a template reads: texts it compares with, names of fields, its variables."""
    texts = {node.value for node in template.find_all(jinja2.nodes.Const)}
    fields = {node.attr for node in template.find_all(jinja2.nodes.Getattr)} | texts
    return TemplateWords(
        tool_role="tool" in texts,
        tool_calls="tool_calls" in fields,
        metadata="metadata" in fields,
        tools="tools" in jinja2.meta.find_undeclared_variables(template),
        message_tools="tools" in fields,
    )


def _make_environment() -> BoundedSandbox:
    environment = BoundedSandbox(extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.bound_filters()
    return environment


class _GenerationBlock(Extension):
    """`{% generation %}` marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  # Jinja's own declaration

    def parse(self, parser: Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does: Jinja's own filter would escape HTML and Chinese."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
