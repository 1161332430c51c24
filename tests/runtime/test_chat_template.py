import json
from datetime import datetime
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from glm_runtime import ChatOptions
from glm_runtime.errors import FolderError, PromptError
from glm_runtime.text.chat_template import ChatTemplate, read_chat_template

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
TOOL = {
    "type": "function",
    "function": {"name": "天气", "parameters": {"html": "<b>&'\"", "n": [1, 2.5, None, True]}},
}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"城": 1}}]}
CONVERSATIONS = [
    [{"role": "user", "content": "Hello <b>&"}],
    [{"role": "system", "content": "系统"}, {"role": "user", "content": "床前明月光\n"}],
    [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "<think>\nwhy</think>\n\nbecause "},
        {"role": "user", "content": "2"},
        CALL,
        {"role": "observation", "content": '{"a": "b"}'},
    ],
]
TEMPLATES = {
    "json": "{{ messages | tojson }}{{ tools | tojson(indent=2) }}"
    "{{ tools | tojson(sort_keys=true) }}",
    "ascii": "{{ [messages, tools] | tojson(ensure_ascii=True, separators=(',', ':')) }}",
    "blocks": "{% for m in messages %}\n  {% if m.content %}\n x{{ m.content }}\n  {% endif %}\n"
    "{% endfor %}\nend\n",
    "loops": "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}"
    "{% endfor %}{% for i in range(4) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}"
    "{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}\n{% endgeneration %}"
    "{% endfor %}",
    "year": "{{ strftime_now('%Y') }}",
    "defined": "{{ tools is none }}{{ documents is none }}{{ bos_token is defined }}"
    "{{ add_generation_prompt }}{{ nothing is defined }}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}",
    "strings": "{{ (messages[0].content ~ 'x').strip().split('l')[-1] }}",
}


# Calls are written as text for templates that read none; see test_chat_parity.py.
WITHOUT_CALLS = [[one for one in messages if one is not CALL] for messages in CONVERSATIONS]


@pytest.mark.parametrize("messages", WITHOUT_CALLS)
@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("name", TEMPLATES)
def test_rendering_is_that_of_transformers(name: str, tools: list | None, messages: list):
    expected, _ = render_jinja_template(
        [messages], tools, chat_template=TEMPLATES[name], add_generation_prompt=True
    )
    rendered = ChatTemplate(TEMPLATES[name]).render(messages, ChatOptions(tuple(tools or ())))
    assert rendered == expected[0]


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("is_answer_next", [True, False])
def test_the_sample_checkpoints_template_renders_as_its_tokenizer_does(
    messages: list, tools: list | None, is_answer_next: bool
):
    reference = AutoTokenizer.from_pretrained(SAMPLE)
    expected = reference.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=is_answer_next
    )
    template = read_chat_template(SAMPLE)
    assert template is not None
    rendered = template.render(
        messages, ChatOptions(tuple(tools or ())), is_answer_next=is_answer_next
    )
    assert rendered == expected


def test_strftime_now_is_the_local_time():
    before = datetime.now().strftime("%Y-%m-%d %H:%M")
    rendered = ChatTemplate("{{ strftime_now('%Y-%m-%d %H:%M') }}").render([])
    assert before <= rendered <= datetime.now().strftime("%Y-%m-%d %H:%M")


def test_special_tokens_may_be_text_or_objects(tmp_path: Path):
    config = {
        "eos_token": {"content": "<|end|>", "lstrip": False},
        "bos_token": "<sop>",
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = read_chat_template(tmp_path)
    assert template is not None
    assert template.render([{"role": "user", "content": "x"}]) == "<sop>x<|end|>"


def test_of_several_named_templates_the_default_is_taken(tmp_path: Path):
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = read_chat_template(tmp_path)
    assert template is not None
    assert template.render([]) == "D"


def test_the_file_wins_over_the_config_and_without_both_there_is_none(tmp_path: Path):
    assert read_chat_template(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "config"}))
    (tmp_path / "chat_template.jinja").write_text("file")
    template = read_chat_template(tmp_path)
    assert template is not None
    assert template.render([]) == "file"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('no such role') }}", "no such role"),
        ("{{ messages[0].content + 1 }}", "concatenate|unsupported"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_templates_reason(source: str, reason: str):
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(PromptError, match=rf"template refuses these messages \(.*({reason})"):
        ChatTemplate(source).render(messages)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("{{ messages[5].content }}", "a value"),
        ("{{ messages[0].title.strip() }}", "'title'"),
        ("{{ 'a' ~ messages[0].title.strip }}", "'title'"),
        ("{{ documents_of.first }}", "'documents_of'"),
    ],
)
def test_what_a_template_misses_is_named_in_our_words(source: str, found: str):
    """Jinja's words named Python's types: 'dict object' has no attribute 'content'."""
    with pytest.raises(PromptError, match=f"template reads {found}, which these messages do not"):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_a_broken_template_or_config_is_named(tmp_path: Path):
    with pytest.raises(FolderError, match=r"chat_template\.jinja is not a valid Jinja template"):
        ChatTemplate("{% if %}")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(FolderError, match=r"tokenizer_config\.json is not JSON"):
        read_chat_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(FolderError, match=r"chat_template\.jinja is not UTF-8 text"):
        read_chat_template(tmp_path)


def test_a_list_without_a_named_template_is_none(tmp_path: Path):
    """Once a traceback, in a folder that had been exported without complaint."""
    named = [3, {"name": "rag"}, {"template": "x"}, {"name": "default", "template": None}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert read_chat_template(tmp_path) is None
