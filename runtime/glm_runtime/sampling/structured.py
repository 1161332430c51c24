"""Structured output: answers that match a JSON schema, a regular expression or a Lark grammar.

The library llguidance computes which tokens may come next. It is imported only for a grammar. Read
`tokenizer.py` before.
"""

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from glm_runtime.errors import (
    GrammarError,
    GrammarStopError,
    MissingDependencyError,
    panics_as_errors,
)
from glm_runtime.folder.manifest import ModelEntry
from glm_runtime.sampling.schema_limits import MAX_COMBINED_RULES, count_combined_rules
from glm_runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

_Result = TypeVar("_Result")
GrammarKind = Literal["json_schema", "regex", "lark"]


class DescribesItself(Protocol):
    """A class that knows its JSON schema, such as a subclass of pydantic's `BaseModel`."""

    def model_json_schema(self) -> dict[str, Any]:
        """Return the JSON schema; pydantic makes it a method of the class."""


JsonSchema = str | Mapping[str, Any] | type | DescribesItself

# llguidance takes some KB of stack for each rule of a chain, and a rule has at least 8 characters.
# Its crash would end the process. Measured with llguidance 1.9: 30,000 rules fit into this stack.
MAX_GRAMMAR_CHARACTERS = 200_000
_STACK_BYTES = 256 << 20  # reserved, not used, by smaller grammars
_STACK_LOCK = threading.Lock()  # the size is a setting of the process

# JSON with Python's separators, as GLM writes arguments. With free white space a small model may
# write blanks without end.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Grammar:
    """A grammar that the whole answer must match; reasoning before it is free.

    Attributes:
        kind: language of `source`: a JSON schema as JSON text, a regular expression in Rust's
            syntax, or a Lark grammar in llguidance's syntax.
        source: text of the grammar.
        has_free_text: whether the answer may begin with any text, as without a grammar. Then blank
            lines before that text are left out.
        parts: grammars that are parts of it, by what users call them. If it is not valid, the error
            names the part that is not.
    """

    kind: GrammarKind
    source: str
    has_free_text: bool = False
    parts: Mapping[str, "Grammar"] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_schema(cls, schema: JsonSchema) -> "Grammar":
        """Make a grammar of a JSON schema.

        Args:
            schema: a mapping, JSON text, or a class with `model_json_schema()`, as in pydantic.

        Raises:
            GrammarError: the schema is none of these, or cannot be written as JSON.
        """
        if isinstance(schema, str):
            return cls("json_schema", schema)
        describe = getattr(schema, "model_json_schema", None)
        content: Any = schema if describe is None else describe()
        try:
            return cls("json_schema", json.dumps(dict(content)))
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(
                f"the JSON schema cannot be written as JSON ({error}); give a mapping, JSON text, "
                "or a class with model_json_schema(), as in pydantic."
            ) from error

    def __post_init__(self) -> None:
        """Refuse text that cannot be written as UTF-8, and what takes too long to compile.

        Raises:
            GrammarError: the source has half a surrogate pair, as undecodable input does, is too
                long to be compiled safely, or combines too many rules for one text.
        """
        if len(self.source) > MAX_GRAMMAR_CHARACTERS:
            found = f"it has {len(self.source)} characters where {MAX_GRAMMAR_CHARACTERS} are the"
            raise _explain(self, f"{found} limit")
        try:
            self.source.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _explain(self, str(error)) from error
        if self.kind == "json_schema":
            count = count_combined_rules(self.source)
            if count > MAX_COMBINED_RULES:
                found = f"it combines {count} patterns, formats and lengths of texts by allOf, "
                found += f"anyOf, oneOf or $ref where {MAX_COMBINED_RULES} are the limit"
                raise _explain(self, found)


class GrammarMask:
    """Tells which tokens of one answer its grammar allows."""

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, model: ModelEntry) -> None:
        """Compile the grammar.

        Raises:
            GrammarError: the grammar is not valid, or llguidance does not support a part of it.
            MissingDependencyError: llguidance is not installed.
        """
        library = _import_llguidance()
        self._vocabulary = tokenizer.grammar_vocabulary(model.vocab_size, model.eos_token_ids)
        try:
            self._matcher: llguidance.LLMatcher = _run_deep(
                lambda: _compile(grammar, library, self._vocabulary), grammar
            )
        except GrammarError:
            for name, part in grammar.parts.items():
                _require_valid(name, part, library, self._vocabulary)
            raise
        self._require_no_error()

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete and no token may follow."""
        return bool(self._matcher.is_stopped())

    def __call__(self, scores: npt.NDArray[np.float32]) -> None:
        """Set the scores [V] of forbidden tokens to -inf, in place.

        Raises:
            GrammarStopError: no token is allowed, or the grammar became too complex.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._require_no_error()
        allowed = np.unpackbits(packed, bitorder="little")[: scores.size]
        if not allowed.any():
            raise GrammarStopError(
                "the grammar allows no token of this vocabulary at this position; check its "
                "literals and patterns."
            )
        np.putmask(scores, allowed == 0, -np.inf)

    def accept(self, token: int) -> None:
        """Take the chosen token.

        Raises:
            GrammarStopError: the grammar does not allow the token.
        """
        self._matcher.consume_token(token)
        self._require_no_error()

    def accept_text(self, text: str) -> None:
        """Take text that follows the end of the reasoning within one token.

        Raises:
            GrammarStopError: the grammar does not allow the text.
        """
        for token in self._vocabulary.tokenize_str(text):
            self.accept(token)

    def _require_no_error(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().strip().splitlines()[0]
            raise GrammarStopError(
                f"the grammar cannot be applied any further ({reason}); simplify it, or check that "
                "it allows what the prompt asks for."
            )


def _compile(
    grammar: Grammar, library: ModuleType, vocabulary: "llguidance.LLTokenizer"
) -> "llguidance.LLMatcher":
    with panics_as_errors():
        text = _translate(grammar, library)
        is_wrong, messages = library.LLMatcher.validate_grammar_with_warnings(text, vocabulary)
        if is_wrong:
            raise _explain(grammar, messages[0])
        matcher: llguidance.LLMatcher = library.LLMatcher(vocabulary, text, log_level=0)
        matcher.compute_bitmask()  # the first one builds what later ones need
        return matcher


def _require_valid(
    name: str, part: Grammar, library: ModuleType, vocabulary: "llguidance.LLTokenizer"
) -> None:
    try:
        _run_deep(lambda: _compile(part, library, vocabulary), part)
    except GrammarError as error:
        raise GrammarError(f"{name}: {error}") from error


def _run_deep(function: Callable[[], _Result], grammar: Grammar) -> _Result:
    """Run a function in a thread with a large stack: llguidance recurses once for each rule.

    Raises:
        GrammarError: the grammar is not valid.
    """
    with ThreadPoolExecutor(1) as pool:
        with _STACK_LOCK:
            previous = threading.stack_size(_STACK_BYTES)
            try:
                future = pool.submit(function)  # starts the thread
            except RuntimeError as error:
                raise _explain(grammar, f"no thread can be started for it: {error}") from error
            finally:
                threading.stack_size(previous)
        try:
            return future.result()
        except RuntimeError as error:
            raise _explain(grammar, str(error)) from error


def _import_llguidance() -> ModuleType:
    try:
        import llguidance  # noqa: PLC0415  # an optional package
    except ImportError as error:
        raise MissingDependencyError(
            f"a grammar needs llguidance, which cannot be imported ({error}); install it with "
            "`pip install llguidance`."
        ) from error
    return llguidance


def _translate(grammar: Grammar, library: ModuleType) -> str:
    matcher = library.LLMatcher
    if grammar.kind == "regex":
        text: str = matcher.grammar_from_regex(grammar.source)
    elif grammar.kind == "lark":
        text = matcher.grammar_from_lark(grammar.source)
    else:
        try:
            text = matcher.grammar_from_json_schema(grammar.source, defaults=JSON_STYLE)
        except ValueError as error:
            raise _explain(grammar, str(error)) from error
    return text


def _explain(grammar: Grammar, reason: str) -> GrammarError:
    kind = grammar.kind.replace("_", " ")
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return GrammarError(
        f"the {kind} cannot be used ({'; '.join(lines)[:300]}); correct it, or see what "
        "llguidance's documentation says is supported."
    )
