"""A row of the input: its id, its place in the order of common prefixes, and its text.

Rows of tables become the same lines of JSON that files of prompts have. This file does not know
Ray.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glm_runtime.prompt_lines import CHAT_KEYS, ID_KEYS, KNOWN_KEYS, PromptLine

# The order compares hashes of parts of the text: equal beginnings give equal beginnings. Many short
# parts come first, so that short instructions in common are seen.
_PARTS = (64,) * 64 + (512,) * 64
_CHARACTERS = 4  # of each part's hash
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Row:
    """A row.

    Attributes:
        row_id: its id as a text; the id that the row gives, or one made of its place or content.
        order: rows with a common prefix have neighbouring values.
        place: where the row stands, as an error names it.
        text: the row as a line of JSON.
        is_made: whether the id was made of the content, so that equal rows have equal ids.
        error: what is wrong with a line that cannot be read; "" if it can.
    """

    row_id: str
    order: str
    place: str
    text: str
    is_made: bool = False
    error: str = ""


@dataclass(frozen=True)
class Columns:
    """The columns of a table that hold ids and prompts.

    Attributes:
        row_id: name of the column of ids; `None` takes `custom_id` or `id`.
        prompt: name of the column of prompts; `None` takes `prompt` or `messages`.
    """

    row_id: str | None = None
    prompt: str | None = None

    def is_used(self, name: str) -> bool:
        """Return whether a column takes part."""
        return name in KNOWN_KEYS or name in (self.row_id, self.prompt)


def make_row(line: PromptLine, place: str, given_id: object = None, *, has_place: bool) -> Row:
    """Make a row of a line.

    Args:
        line: the line, which may hold no prompt.
        place: where it stands.
        given_id: its id, if another key than usual has it.
        has_place: whether the place can serve as id.
    """
    values = (given_id, *(line.content.get(key) for key in reversed(ID_KEYS)))
    found = next((value for value in values if value is not None), None)
    if found is not None:
        row_id = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    else:
        row_id = place if has_place else f"row-{_hash(line.text)[:16]}"
    is_made = found is None and not has_place
    error = "" if line.error is None else str(line.error)
    return Row(row_id, _find_order(line.content), place, line.text, is_made, error)


def read_table_row(values: Mapping[str, object], columns: Columns, path: str) -> Row:
    """Make a row of a row of a table; columns without a meaning take no part.

    Args:
        values: values by column. Lists and objects may also be texts of JSON.
        columns: the columns of ids and prompts.
        path: the file that holds the row.
    """
    content = {
        name: _parse(name, value)
        for name, value in values.items()
        if name in KNOWN_KEYS and value is not None
    }
    if columns.prompt is not None:
        content.pop("messages", None)
        content["prompt"] = values.get(columns.prompt)
        if not isinstance(content["prompt"], str):
            del content["prompt"]
    given = values.get(columns.row_id) if columns.row_id is not None else None
    if given is not None:
        content = {name: value for name, value in content.items() if name not in ID_KEYS}
        content["id"] = given
    text = json.dumps(_drop_empty(content), ensure_ascii=False, sort_keys=True, default=str)
    line = PromptLine(0, text, content)
    row = make_row(line, "", given, has_place=False)
    return dataclasses.replace(row, place=f"{path}, row {row.row_id}")


def number_repeats(row_id: str, repeats: int) -> str:
    """Return the id of the next row of equal content, if rows have no ids."""
    return row_id if repeats == 0 else f"{row_id}-{repeats + 1}"


def digest_ids(row_ids: Sequence[str]) -> str:
    """Return a hash of ids, in their order."""
    return _hash(_SEPARATOR.join(row_ids))


def _find_order(content: Mapping[str, object]) -> str:
    chat = [content.get(key) for key in CHAT_KEYS]
    messages = content.get("messages") or content.get("prompt")
    texts = [json.dumps(chat, ensure_ascii=False, default=str)] if any(chat) else []
    for message in messages if isinstance(messages, list) else [messages]:
        texts.append(str(message))
    text, parts, start = _SEPARATOR.join(texts), [], 0
    for length in _PARTS:
        if start >= len(text):
            break
        parts.append(_hash(text[start : start + length])[:_CHARACTERS])
        start += length
    return "".join(parts)


def _parse(name: str, value: object) -> object:
    """Read a list or an object that a table holds as a text of JSON."""
    if name not in ("messages", "tools", "json_schema") or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _drop_empty(value: object) -> object:
    """Leave out what is null, since the rows of a table have all keys of all rows."""
    if isinstance(value, dict):
        return {key: _drop_empty(one) for key, one in value.items() if one is not None}
    return [_drop_empty(one) for one in value] if isinstance(value, list) else value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
