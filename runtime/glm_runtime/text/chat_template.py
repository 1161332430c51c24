"""Messages to prompt text, by the checkpoint's Jinja template, with the same bytes as transformers.

A checkpoint's template is not trusted, so it runs in the sandbox of `template_sandbox.py`. This
file knows nothing about tokens. `written_check.py` finds what a template leaves out. Reference:
`transformers.utils.chat_template_utils` (transformers 5).
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path

import jinja2
import jinja2.nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser

from glm_runtime.errors import FolderError, HostileTemplateError, PromptError, first_line
from glm_runtime.folder.strict_json import parse_json
from glm_runtime.text.chat_messages import (
    ChatOptions,
    Message,
    Tool,
    adapt_messages,
    is_plain,
    simplify_messages,
)
from glm_runtime.text.dialects.choice import choose_dialect
from glm_runtime.text.dialects.dialect import CallDialect
from glm_runtime.text.named_templates import (
    NAMES_NAME,
    TEMPLATE_NAME,
    combine_templates,
    find_named_templates,
)
from glm_runtime.text.template_features import (
    TemplateFeatures,
    find_features,
    find_own_tools,
)
from glm_runtime.text.template_operations import check_date_format
from glm_runtime.text.template_sandbox import BoundedSandbox, new_steps
from glm_runtime.text.written_check import require_written

TABLE_NAME = "chat_table.json"  # the template for hosts without Jinja
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
# Follows an answer that is continued; a template that strips contents drops the blank. As in
# transformers.
_END_MARK = "END_OF_WHAT_IS_CONTINUED "
# How Jinja names a key of a message, or a variable, that it did not find.
_MISSING_NAME = re.compile(r"(?<='dict object' has no attribute )'\w+'|'\w+'(?= is undefined$)")

__all__ = [
    "TABLE_NAME",
    "TEMPLATE_NAME",
    "ChatTemplate",
    "find_special_tokens",
    "read_chat_template",
]


class ChatTemplate:
    """A compiled chat template, with the special tokens that it may use.

    Attributes:
        source: its Jinja source.
    """

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, object] | None = None,
        named: Mapping[str, str] | None = None,
    ) -> None:
        """Compile a template.

        Args:
            source: Jinja source.
            special_tokens: values of template variables such as `bos_token`.
            named: sources of the checkpoint's named templates.

        Raises:
            FolderError: the template is not valid Jinja.
        """
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        self._named = dict(named or {})
        environment = _make_environment()
        try:
            self._template = environment.from_string(environment.parse_bounded(source))
        # Jinja compiles to Python, whose own limits raise these other errors.
        except (
            jinja2.TemplateError,
            SyntaxError,
            ValueError,
            RecursionError,
            MemoryError,
        ) as error:
            raise FolderError(
                f"{TEMPLATE_NAME} is not a valid Jinja template ({first_line(error)}); "
                "correct it in the checkpoint and export again."
            ) from error

    def choose(self, name: str | None) -> "ChatTemplate":
        """Return the template of a name; `None` is this one, which chooses by the tools.

        Raises:
            PromptError: there is no template of this name.
            FolderError: the template is not valid Jinja.
        """
        if name is None:
            return self
        if name not in self._named:
            names = ", ".join(sorted(self._named)) or "no named templates"
            raise PromptError(
                f"the chat template {name!r} was requested but the folder has {names}; choose one "
                "of these, or leave the name out."
            )
        return ChatTemplate(self._named[name], self._special_tokens)

    @cached_property
    def features(self) -> TemplateFeatures:
        """What the template reads, found by rendering probes."""
        return find_features(self._render_probe)

    def choose_dialect(self, options: ChatOptions) -> CallDialect | None:
        """Return how the model calls tools in its answers; `None` if it may call nothing."""
        if not options.tools and not self.own_tools:
            return None
        return choose_dialect(self.features, options.parameters, options.built_in_tools)

    @cached_property
    def own_tools(self) -> Mapping[str, object]:
        """The tools that the template writes into every prompt."""
        return find_own_tools(self._render_probe)

    @cached_property
    def reads_thinking(self) -> bool:
        """Whether `enable_thinking` changes the prompt of a question."""
        question = [{"role": "user", "content": "?"}]
        choices = (ChatOptions(enable_thinking=choice) for choice in (None, True, False))
        try:
            return len({self.render(question, options) for options in choices}) > 1
        except PromptError:
            return True  # it needs other messages

    def render(
        self,
        messages: Sequence[Message],
        options: ChatOptions | None = None,
        *,
        is_answer_next: bool = True,
    ) -> str:
        """Render a conversation.

        Args:
            messages: messages in OpenAI's format, in order.
            options: tools, whether the model reasons, and whether it continues the last message.
            is_answer_next: whether to end with the template's generation prompt.

        Raises:
            PromptError: the template refuses the messages, or the last one cannot be continued.
            HostileTemplateError: the template does something that is not allowed.
        """
        options = options or ChatOptions()
        simple = simplify_messages(messages)
        if options.continues_answer:
            return self._render_continued(simple, options)
        return self._render_adapted(simple, options.tools, options, is_answer_next=is_answer_next)

    def require_written(
        self, messages: Sequence[Message], options: ChatOptions | None = None
    ) -> None:
        """Check that the template leaves out no message and no tool.

        Raises:
            PromptError: it leaves out something; the sentence names it.
        """
        options = options or ChatOptions()

        def render(marked: Sequence[Message], tools: Sequence[Tool]) -> str:
            return self._render_adapted(marked, tools, options, is_answer_next=False)

        known = {*self.own_tools, *(self.features.built_in_tools if options.tools else ())}
        require_written(simplify_messages(messages), options.tools, render, known)

    def _render_continued(self, messages: list[Message], options: ChatOptions) -> str:
        """Render up to the end of the last message."""
        last = messages[-1] if messages else {}
        content = last.get("content")
        if last.get("tool_calls"):
            raise PromptError(
                "the last message has tool calls where the beginning of an answer is to be "
                "continued, which is text; leave the calls out, or add their results and do not "
                "continue."
            )
        if last.get("role") != "assistant" or not isinstance(content, str) or not content.strip():
            raise PromptError(
                "the last message is not the beginning of an answer where one is to be continued; "
                'end the messages with {"role": "assistant", "content": ...}.'
            )
        marked = [*messages[:-1], {**last, "content": content + _END_MARK}]
        text = self._render_adapted(marked, options.tools, options, is_answer_next=False)
        end = text.rfind(_END_MARK.strip())
        if end < 0:
            raise PromptError(
                "the model's chat template does not write the end of the last message, so an "
                "answer cannot be continued; leave the beginning out."
            )
        is_kept = text.startswith(_END_MARK, end)
        return text[:end] if is_kept else text[:end].rstrip()

    def _render_adapted(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        options: ChatOptions,
        *,
        is_answer_next: bool,
    ) -> str:
        if tools or not is_plain(messages):
            messages = adapt_messages(messages, tools, self.features)
        return self._render_raw(
            messages, list(tools) or None, options.variables, is_answer_next=is_answer_next
        )

    def _render_probe(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None
    ) -> str | None:
        try:
            return self._render_raw(messages, tools, {}, is_answer_next=False)
        except HostileTemplateError:  # the other probes would take as long
            raise
        except PromptError:
            return None

    def _render_raw(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        variables: Mapping[str, object],
        *,
        is_answer_next: bool,
    ) -> str:
        try:
            return self._template.render(
                **self._special_tokens,
                **variables,
                **new_steps(),
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=is_answer_next,
            )
        except PromptError:
            raise
        except SecurityError as error:
            reason = first_line(error).rstrip(".")
            raise HostileTemplateError(
                f"the model's chat template does something that is not allowed ({reason}); "
                "do not trust its source, or pass the whole prompt to Model.generate."
            ) from error
        except jinja2.UndefinedError as error:
            name = _MISSING_NAME.search(str(error))
            raise PromptError(
                f"the model's chat template reads {name[0] if name else 'a value'}, which these "
                "messages do not have; give every message a content, or pass the whole prompt to "
                "Model.generate."
            ) from error
        # A template may raise whatever an expression may raise.
        except Exception as error:
            raise PromptError(
                f"the model's chat template refuses these messages ({first_line(error)}); "
                "check their roles and contents, or pass the whole prompt to Model.generate."
            ) from error


def read_chat_template(folder: Path) -> ChatTemplate | None:
    """Read the template of a folder; `None` when it has none, as base models do.

    Raises:
        FolderError: a file cannot be read, or the template is not valid Jinja.
    """
    config = _read_object(folder / TOKENIZER_CONFIG_NAME)
    named = find_named_templates(folder, config)
    source = combine_templates(named)
    if source is None:
        return None
    named |= {name: str(text) for name, text in _read_object(folder / NAMES_NAME).items()}
    return ChatTemplate(source, find_special_tokens(config), named)


def _read_object(path: Path) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderError(f"{path} is not JSON ({error}); export the folder again.") from error
    return config if isinstance(config, dict) else {}


def find_special_tokens(config: Mapping[str, object]) -> dict[str, object]:
    """Return `bos_token`, `eos_token` and so on, which the config has as texts or objects."""
    tokens: dict[str, object] = {}
    for key, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            tokens[key] = text
    return tokens


def _make_environment() -> BoundedSandbox:
    environment = BoundedSandbox(extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.bound_filters()
    return environment


class _GenerationBlock(Extension):
    """Ignores `{% generation %}`, which marks the assistant's text for training."""

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
    """Write JSON as transformers does; Jinja's own filter escapes HTML and Chinese."""
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
    check_date_format(pattern)
    return datetime.now().strftime(pattern)
