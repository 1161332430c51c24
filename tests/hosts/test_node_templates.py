"""The Node package renders the templates of all released models as transformers does."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers.utils.chat_template_utils import render_jinja_template

from glm_runtime.text.dialects.name_line import NameLineCalls
from glm_runtime.text.tool_calls import ToolCallParser
from support import npm_packages
from support.chat_conversations import (
    ASKED,
    CONVERSATIONS,
    VERSE,
    WEATHER,
    assistant,
    render_reference,
    user,
)
from support.chat_templates import OWN_SYSTEM, RELEASED_STYLES, list_templates

PACKAGE = Path(__file__).parents[2] / "runtime" / "node"
EDGE = RELEASED_STYLES["GLM-Edge"][0]
FIRST_TOOL = "{% for m in messages %}{{ m.content }}{% endfor %}{{ (tools or [{}])[0] | tojson }}"
PIECES = (
    *(
        "get_verse",
        "get",
        "查诗",
        "get\n{}",
        "\n",
        "\n",
        "\r\n",
        "{",
        "}",
        '{"a": 1}',
        '"',
        "\\",
        ":",
    ),
    *(" ", "\t", "```", "```json\n", "a", "get_verse\n", "get\n```\n{}"),
)
# Template, messages, tools, and the words of the refusal.
DROPPED: tuple[tuple[str, list[dict[str, Any]], list[dict[str, Any]], str | None], ...] = (
    (EDGE, [ASKED], [WEATHER], "does not write the tool .get_weather"),
    (OWN_SYSTEM, [ASKED], [WEATHER], "does not write the tool .get_weather"),
    (FIRST_TOOL, [ASKED], [WEATHER], None),
    (FIRST_TOOL, [ASKED], [WEATHER, VERSE], "does not write the tool .get_verse"),
    (OWN_SYSTEM, [{"role": "system", "content": "a"}, ASKED], [], "with the role .system"),
    (EDGE, [ASKED, {"role": "tool", "content": "b"}], [], r"with the role .tool.*message 2"),
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
    return [refused, *begun] + [
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


def list_written() -> list[dict[str, Any]]:
    keys = ("source", "messages", "tools", "words")
    rows = [dict(zip(keys, row, strict=True)) for row in DROPPED]
    return [{"name": f"{place} {row['words']}", **row} for place, row in enumerate(rows)]


def list_called() -> list[dict[str, Any]]:
    """Random texts of calls and of what only looks like one, as Python reads them."""
    generator, names = random.Random(0), ["get_verse", "get", "查诗"]
    texts = ["".join(generator.choices(PIECES, k=generator.randrange(1, 12))) for _ in range(3000)]
    rows = []
    for text in texts:
        parser = ToolCallParser(NameLineCalls(tuple(names)))
        shown = parser.add(text)
        rest, calls = parser.finish()
        said = [{"name": call.name, "arguments": call.arguments} for call in calls]
        rows.append({"text": text, "names": names, "shown": shown + rest, "calls": said})
    assert sum(bool(row["calls"]) for row in rows) > 100
    return rows


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
