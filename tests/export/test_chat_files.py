"""The template files of a folder: named templates, and the one that onnxruntime-genai reads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from glm_export import ExportOptions, export
from glm_export.errors import CheckpointError
from glm_export.folder.side_files import list_chat_notes
from glm_export.plan.report import ExportReport
from glm_runtime import ChatOptions, Model, PromptError, load
from glm_runtime.text.chat_template import ChatTemplate, read_chat_template
from glm_runtime.text.named_templates import combine_templates
from support.chat_conversations import ASKED, CONVERSATIONS, WEATHER
from support.chat_templates import LIKE_0414, OWN_SYSTEM
from support.refusals import assert_sentence
from support.tiny_models import TinyShape, build_model, write_checkpoint

TOOL_USE = (
    "{{ '\\n' }}Tools: {{ tools | tojson }}{% for m in messages %}{{ m.content }}{% endfor %}\n"
)
RAG = "rag {% for m in messages %}{{ m.content }}{% endfor %}"
QUESTION = [{"role": "user", "content": "你好 "}]
PLAIN = ("one question", "system", "turns", "two systems", "earlier thoughts", "braces")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As transformers 5 saves several templates."""
    folder = tmp_path_factory.mktemp("named") / "checkpoint"
    write_checkpoint(folder, build_model(TinyShape()))
    (folder / "chat_template.jinja").write_text(LIKE_0414)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TOOL_USE)
    (folder / "additional_chat_templates" / "rag.jinja").write_text(RAG)
    return folder


@pytest.fixture(scope="module")
def report(checkpoint: Path) -> ExportReport:
    return export(ExportOptions(checkpoint, checkpoint.parent / "out", quant="none", verify="none"))


@pytest.fixture(scope="module")
def model(report: ExportReport) -> Model:
    return load(report.folder, device="cpu")


def test_all_names_are_kept(report: ExportReport) -> None:
    names = json.loads((report.folder / "chat_templates.json").read_text())
    assert names == {"default": LIKE_0414, "rag": RAG, "tool_use": TOOL_USE}
    assert report.notes == ()


@pytest.mark.parametrize("tools", [[], [WEATHER]])
def test_every_host_chooses_as_transformers_chooses(
    tools: list[dict[str, Any]], checkpoint: Path, report: ExportReport, model: Model
) -> None:
    """Before, the template for tools was dropped silently."""
    prompts = [
        AutoTokenizer.from_pretrained(folder).apply_chat_template(
            QUESTION, tools=tools or None, tokenize=False, add_generation_prompt=True
        )
        for folder in (checkpoint, report.folder)
    ]
    assert prompts[0] == prompts[1]
    assert prompts[0].startswith("\nTools: [" if tools else "[gMASK]<sop><|user|>")
    assert model.chat_template is not None
    assert model.chat_template.render(QUESTION, ChatOptions(tuple(tools))) == prompts[0]


@pytest.mark.parametrize("stored", [5, [{"name": "default"}], {"default": None}, ["text"]])
def test_a_template_that_is_no_text(stored: object, checkpoint: Path, tmp_path: Path) -> None:
    """It was ignored, so that a folder had no template or one too few."""
    shutil.copytree(checkpoint, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("*.jinja"))
    path = tmp_path / "checkpoint" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": stored}))
    options = ExportOptions(path.parent, tmp_path / "out", quant="none", verify="none")
    with pytest.raises(
        CheckpointError, match=r"tokenizer_config\.json says chat_template="
    ) as caught:
        export(options)
    assert_sentence(str(caught.value), "a text, or a list of objects")


def test_a_template_is_chosen_by_its_name(model: Model, checkpoint: Path) -> None:
    ids = model.prepare_chat(QUESTION, ChatOptions(template="rag")).token_ids
    assert model.tokenizer.decode(ids) == "rag 你好 "
    template = read_chat_template(checkpoint)
    assert template is not None
    assert template.choose("rag").render(QUESTION) == "rag 你好 "
    with pytest.raises(PromptError, match="'x' was requested but the folder has default, rag, to"):
        model.prepare_chat(QUESTION, ChatOptions(template="x"))


BORDERS = (
    "a",
    "\na\n",
    "  a\n\n",
    "\n  {% if 1 %}a{% endif %}\n",
    "{%- if 1 -%}a\r\n{%- endif %} ",
)


@pytest.mark.parametrize("default", BORDERS)
@pytest.mark.parametrize("with_tools", BORDERS)
def test_white_space_at_the_borders_stays(default: str, with_tools: str) -> None:
    combined = combine_templates({"default": f"{default}", "tool_use": f"T{with_tools}"})
    assert combined is not None
    for source, tools in ((default, None), (f"T{with_tools}", [WEATHER])):
        (expected,), _ = render_jinja_template([QUESTION], tools, chat_template=source)
        (rendered,), _ = render_jinja_template([QUESTION], tools, chat_template=combined)
        assert rendered == expected
        options = ChatOptions(tuple(tools or ()))
        assert ChatTemplate(combined).render(QUESTION, options) == expected


@pytest.mark.parametrize(
    "stored",
    [
        [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}],
        {"default": "D", "tool_use": "T"},
    ],
)
def test_names_in_tokenizer_config(stored: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": stored}))
    template = read_chat_template(tmp_path)
    assert template is not None
    assert template.render(QUESTION) == "D"
    assert template.render(QUESTION, ChatOptions((WEATHER,))) == "T"


def test_the_table_writes_no_tools_that_another_template_writes(report: ExportReport) -> None:
    """In C, the default's tools would stand where all other hosts write those of `tool_use`."""
    table = json.loads((report.folder / "chat_table.json").read_text())
    assert table["roles"]
    assert "tools" not in table


@pytest.mark.parametrize("tools", [[], [WEATHER]], ids=["no tools", "tools"])
def test_templates_without_a_default(tools: list[dict[str, Any]], tmp_path: Path) -> None:
    """Before, all of them were dropped without a word."""
    folder = write_checkpoint(tmp_path / "checkpoint", build_model(TinyShape()))
    (folder / "chat_template.jinja").unlink()
    stored = {"chat_template": {"tool_use": TOOL_USE, "rag": RAG}}
    (folder / "tokenizer_config.json").write_text(json.dumps(stored))
    report = export(ExportOptions(folder, tmp_path / "out", quant="none", verify="none"))
    assert "none of the chat templates (rag, tool_use) is the default" in report.notes[0]
    model = load(report.folder, device="cpu")
    theirs = [AutoTokenizer.from_pretrained(path) for path in (folder, report.folder)]
    render = [tokenizer.apply_chat_template for tokenizer in theirs]
    assert model.chat_template is not None
    options = ChatOptions(tuple(tools))
    if tools:
        expected = render[0](QUESTION, tools=tools, tokenize=False)
        assert render[1](QUESTION, tools=tools, tokenize=False) == expected
        assert model.chat_template.render(QUESTION, options, is_answer_next=False) == expected
        return
    with pytest.raises(ValueError, match="no default"):
        render[0](QUESTION, tokenize=False)
    with pytest.raises(PromptError, match="none is the default; give tools"):
        model.prepare_chat(QUESTION, options)
    ids = model.prepare_chat(QUESTION, ChatOptions(template="rag")).token_ids
    assert model.tokenizer.decode(ids) == "rag 你好 "


def test_a_byte_order_mark_is_no_part_of_a_template(tmp_path: Path) -> None:
    """It became three tokens at the beginning of every prompt."""
    folder = write_checkpoint(tmp_path / "checkpoint", build_model(TinyShape()))
    path = folder / "chat_template.jinja"
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    report = export(ExportOptions(folder, tmp_path / "out", quant="none", verify="none"))
    assert (report.folder / "chat_template.jinja").read_bytes() == content


def test_genai_needs_no_template_from_its_user(report: ExportReport) -> None:
    """It does not render `split` after a filter as Jinja does: of Z1's template nothing was right.

    It reads tokenizer_config.json first, and all other hosts read chat_template.jinja first.
    """
    genai = pytest.importorskip("onnxruntime_genai", reason="needs the extra `peers`")
    tokenizer = genai.Tokenizer(genai.Model(str(report.folder)))
    for name in PLAIN:
        chosen = CONVERSATIONS[name]
        expected = ChatTemplate(LIKE_0414).render(chosen.messages)
        rendered = tokenizer.apply_chat_template(
            json.dumps(chosen.messages), add_generation_prompt=True
        )
        assert rendered == expected, name
    with pytest.raises(Exception, match="this template writes no tools"):
        tokenizer.apply_chat_template(
            json.dumps([ASKED]), tools=json.dumps([WEATHER]), add_generation_prompt=True
        )


def test_a_template_without_a_table_is_noted() -> None:
    assert list_chat_notes({}) == ()
    assert list_chat_notes({"chat_template.jinja": b"", "chat_table.json": b""}) == ()
    (note,) = list_chat_notes({"chat_template.jinja": OWN_SYSTEM.encode()})
    assert "C++ runtime cannot render messages" in note
