"""The Node package renders the templates of all released models as transformers does."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers.utils.chat_template_utils import render_jinja_template

from glm_runtime import ChatOptions, PromptError
from glm_runtime.text.chat_template import ChatTemplate
from support import npm_packages
from support.call_texts import DIALECTS, list_readings
from support.chat_conversations import (
    ASKED,
    CONVERSATIONS,
    VERSE,
    WEATHER,
    assistant,
    call,
    render_reference,
    result,
    user,
)
from support.chat_templates import (
    OWN_SYSTEM,
    READS_CALLS,
    RELEASED_STYLES,
    SETS_TOOLS,
    list_templates,
)

PACKAGE = Path(__file__).parents[2] / "runtime" / "node"
EDGE = RELEASED_STYLES["GLM-Edge"][0]
FIRST_TOOL = "{% for m in messages %}{{ m.content }}{% endfor %}{{ (tools or [{}])[0] | tojson }}"
# Template, messages, tools, and the words of the refusal.
DROPPED: tuple[tuple[str, list[dict[str, Any]], list[dict[str, Any]], str | None], ...] = (
    (EDGE, [ASKED], [WEATHER], "does not write the tool .get_weather"),
    (OWN_SYSTEM, [ASKED], [WEATHER], "does not write the tool .get_weather"),
    (OWN_SYSTEM, [ASKED], [{"name": "search"}], None),
    (SETS_TOOLS, [ASKED], [{"type": "python"}], None),
    (EDGE, [ASKED], [{"type": "python"}], "does not write the tool .python"),
    (READS_CALLS, [ASKED], [{"type": "python"}], "does not write the tool .python"),
    (EDGE, [ASKED, {"role": "assistant", "tool_calls": {"name": "a"}}], [], "message 2 has the to"),
    (
        EDGE,
        [ASKED, {"role": "assistant", "tool_calls": ["a"]}],
        [],
        "where a list of objects is ex",
    ),
    (
        EDGE,
        [ASKED, {"role": "assistant", "content": None}],
        [],
        "message 2 of the assistant has ne",
    ),
    (FIRST_TOOL, [ASKED], [WEATHER], None),
    (FIRST_TOOL, [ASKED], [WEATHER, VERSE], "does not write the tool .get_verse"),
    (OWN_SYSTEM, [{"role": "system", "content": "a"}, ASKED], [], "with the role .system"),
    (EDGE, [ASKED, {"role": "tool", "content": "b"}], [], r"with the role .tool.*message 2"),
    # A byte order mark is no white space, and U+001C is some.
    (EDGE, [ASKED, {"role": "tool", "content": "\ufeff"}], [], r"with the role .tool.*message 2"),
    (EDGE, [ASKED, {"role": "tool", "content": "\x1c"}], [], None),
    (
        EDGE,
        [ASKED, {"role": "assistant", "metadata": "f", "content": "{}"}],
        [],
        "does not write the metadata .f.",
    ),
)


@pytest.mark.slow
def test_templates(tmp_path: Path) -> None:
    package = npm_packages.install(PACKAGE)
    cases = {"rendered": list_rendered(), "written": list_written(), "called": list_called()}
    cases |= make_decoded()
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases, ensure_ascii=False), encoding="utf-8")
    npm_packages.run_tests(package, "templates", {"GLM_TEMPLATE_CASES": str(path)})


def list_rendered() -> list[dict[str, Any]]:
    refusing = "{{ raise_exception('no') }}"
    continued = [user("x"), assistant("Once \n")]
    begun = [
        {
            "name": f"{template} continued",
            "source": source,
            "messages": continued,
            "continuesAnswer": True,
            "expected": render_jinja_template(
                [continued], chat_template=source, continue_final_message=True
            )[0][0],
        }
        for template, (source, _) in list_templates().items()
    ]
    refused = {"name": "refused", "source": refusing, "messages": [ASKED], "expected": None}
    continued = [*continued[:1], assistant("Once", tool_calls=[call("f", {})])]
    calling = {"name": "calls cannot be continued", "source": EDGE, "messages": continued}
    calling |= {"continuesAnswer": True, "expected": None}
    return [refused, calling, *list_arguments(), *begun, *list_own_calls()] + [
        {
            "name": f"{template}: {name}",
            "source": source,
            "messages": chosen.messages,
            "tools": chosen.tools,
            "thinking": chosen.thinking,
            "isAnswerNext": chosen.is_answer_next,
            "expected": render_reference(source, chosen, style),
        }
        for template, (source, style) in list_templates().items()
        for name, chosen in CONVERSATIONS.items()
    ]


def list_arguments() -> list[dict[str, Any]]:
    """null is an empty object, and what is no object is refused, as in Python."""
    return [
        {
            "name": f"{template}: arguments {given!r}",
            "source": source,
            "messages": [ASKED, assistant("", tool_calls=[call("f", given)])],
            "expected": render_or_refuse(
                source, [ASKED, assistant("", tool_calls=[call("f", given)])]
            ),
        }
        for template, (source, _) in list_templates().items()
        for given in (None, [1], 5, False, "[1]", "null", "{bad", "")
    ]


def render_or_refuse(source: str, messages: list[dict[str, Any]]) -> str | None:
    try:
        return ChatTemplate(source).render(messages)
    except PromptError:
        return None


def list_own_calls() -> list[dict[str, Any]]:
    """Calls and results that only one model's template has, as Python's runtime renders them."""
    browse = {"action": "search", "query": 'it\'s "x"', "recency_days": None}
    calls = [
        {**call("python", {"code": "1\n"}), "id": "a"},
        {**call("simple_browser", json.dumps(browse)), "id": "b"},
        {**call("cogview", "{bad"), "id": "c"},
        {**call("search", {"query": browse, "n": [1.5, True]}), "id": "d"},
    ]
    pages = json.dumps([{"title": "A", "url": "u", "snippet": "诗"}] * 2)
    results = [{**result(pages), "tool_call_id": id_} for id_ in "bacd"]
    messages = [user("?"), assistant("I look.", tool_calls=calls), *results, result("x")]
    built_in = [{"type": "python"}, {"type": "simple_browser"}, {"type": "cogview"}, WEATHER]
    sources = [(texts.source, texts.tools) for name, texts in DIALECTS.items() if name != "tags"]
    return [
        {
            "name": f"own calls {place}",
            "source": source,
            "messages": messages,
            "tools": tools,
            "isAnswerNext": True,
            "expected": ChatTemplate(source).render(messages, ChatOptions(tuple(tools))),
        }
        for place, (source, tools) in enumerate([*sources, (SETS_TOOLS, built_in)])
    ]


def list_written() -> list[dict[str, Any]]:
    keys = ("source", "messages", "tools", "words")
    rows = [dict(zip(keys, row, strict=True)) for row in DROPPED]
    return [{"name": f"{place} {row['words']}", **row} for place, row in enumerate(rows)]


def list_called() -> list[dict[str, Any]]:
    """Random texts of calls and of what only looks like one, as Python reads them."""
    found = []
    for name, texts in DIALECTS.items():
        rows = list(list_readings(name, 2000, seed=0))
        assert sum(bool(row["calls"]) for row in rows) > 100
        found.append({"source": texts.source, "tools": texts.tools, "rows": rows})
    return found


def make_decoded() -> dict[str, Any]:
    """Byte order marks: a decoder of JavaScript drops one at the beginning of a run of bytes."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b"]
    vocabulary = {name: place for place, name in enumerate(names)}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    texts = [
        "\ufeffa",
        "\ufeff",
        "a\ufeffb",
        "\ufeff\ufeff a",
        "床\ufeff a\ufeff床",
        "\ufeff\u7fff",
    ]
    rows = [made.encode(text, add_special_tokens=False).ids for text in texts]
    decoded = [{"ids": ids, "text": made.decode(ids)} for ids in rows]
    assert [row["text"] for row in decoded] == texts
    return {"tokenizer": json.loads(made.to_str()), "decoded": decoded}
