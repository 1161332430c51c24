"""onnxruntime-genai runs the folder as it is: the engine of its C, C#, Java and Objective-C too."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import glm_runtime
from glm_export import ExportOptions, export
from glm_export.tokenizer.chat_table_guess import build_chat_table, generate_conversations
from glm_export.tokenizer.chat_table_jinja import write_jinja
from glm_runtime import GenerationSettings, SamplingSettings
from glm_runtime.text.chat_template import ChatTemplate
from support.chat_templates import EXPRESSED
from support.cpp_lines import make_lines

genai = pytest.importorskip("onnxruntime_genai", reason="needs the extra `peers`")
SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
PROMPT = "[gMASK]<sop><|user|>\nRecite John 3:16.<|assistant|>\n"
# What the engine reads otherwise, as docs/hosts.md says.
OTHER_SPACE = "\x85"
OTHER_STRIP = "\u3000"
# Simpler forms of the other templates; `test_vectors` renders the sample's, too.
VARIANTS = ("sample", "tiny", "GLM-4-9B-chat")
SUM_ORDER = 1e-3  # far above what another order of float32 sums does to a logit


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return genai.Model(str(folder))


@pytest.fixture(scope="module")
def tokenizer(model: Any) -> Any:
    return genai.Tokenizer(model)


@pytest.fixture(scope="module")
def vectors(folder: Path) -> list[dict[str, Any]]:
    return read_vectors(folder)


def test_vectors(model: Any, tokenizer: Any, vectors: list[dict[str, Any]]) -> None:
    for vector in vectors:
        rendered = tokenizer.apply_chat_template(
            json.dumps(vector["messages"]), add_generation_prompt=True
        )
        assert rendered == vector["rendered"]
        ids = tokenizer.encode(rendered).tolist()
        assert ids == vector["token_ids"]
        generator = _start(model, ids, 64)
        logits = np.asarray(generator.get_logits()).reshape(-1)[vector["logit_ids"]]
        np.testing.assert_allclose(logits, vector["logits"], atol=1e-4, rtol=0)
        answer = _finish(generator, len(ids))
        expected = vector["greedy"]["token_ids"]
        if vector["greedy"]["finish_reason"] == "stop":
            expected = expected[:-1]  # the engine's sequence is without the token that ends it
        assert answer == expected
        assert tokenizer.decode(answer) == vector["greedy"]["text"]


def test_rows_of_different_length(float_folder: Path) -> None:
    """The engine pads rows on the right, and writes zeros into the mask for them.

    A batch adds up in another order than a single row does, and kernels that round activations to
    int8 make more of it: only float kernels give the same tokens on every processor.
    """
    vectors = read_vectors(float_folder)
    assert min(vector["smallest_margin"] for vector in vectors) > SUM_ORDER
    model = genai.Model(str(float_folder))
    prompts = genai.Tokenizer(model).encode_batch([vector["rendered"] for vector in vectors])
    parameters = genai.GeneratorParams(model)
    length = prompts.as_numpy().shape[1]
    parameters.set_search_options(do_sample=False, batch_size=len(vectors), max_length=length + 30)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompts.as_numpy())
    while not generator.is_done():
        generator.generate_next_token()
    for row, vector in enumerate(vectors):
        expected = vector["greedy"]["token_ids"][:30]
        assert generator.get_sequence(row).tolist()[length:][: len(expected)] == expected


@pytest.mark.parametrize(
    "choices", [{"target": "cuda"}, {"kv_cache": "int8"}], ids=["cuda", "int8 cache"]
)
def test_other_folders(choices: dict[str, str], tmp_path: Path) -> None:
    """A folder for CUDA is run on the CPU here: float16, two outputs more."""
    folder = tmp_path / "int4"
    export(ExportOptions(SAMPLE, folder, method="rtn", verify="none", threads=2, **choices))
    ours = glm_runtime.load(folder, device="cpu")
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=48)
    expected = [piece.token_id for piece in ours.generate(PROMPT, settings)]
    if expected[-1] in ours.manifest.model.eos_token_ids:
        expected.pop()

    config = genai.Config(str(folder))
    config.clear_providers()  # as a user without a GPU does
    ids = ours.tokenizer.encode(PROMPT)
    assert _finish(_start(genai.Model(config), ids, 48), len(ids)) == expected


def test_config(folder: Path, model: Any) -> None:
    """Every default of search is said, and the engine takes it over."""
    content = json.loads((folder / "genai_config.json").read_text("utf-8"))
    generation = json.loads((folder / "generation_config.json").read_text("utf-8"))
    assert content["model"]["eos_token_id"] == generation["eos_token_id"]
    assert content["search"]["top_p"] == generation["top_p"]
    assert content["search"]["top_k"] == 50  # transformers', which generation_config.json leaves
    taken = genai.GeneratorParams(model).get_search_options()
    assert {name: taken[name] for name in content["search"]} == pytest.approx(content["search"])


def test_cuda_is_asked_for(tmp_path: Path) -> None:
    """A folder for CUDA names its provider, which this package does not have."""
    folder = tmp_path / "cuda"
    export(ExportOptions(SAMPLE, folder, method="rtn", verify="none", target="cuda"))
    with pytest.raises(Exception, match=r"[Cc]uda"):
        genai.Model(str(folder))


def test_what_differs(tokenizer: Any, folder: Path) -> None:
    """As docs/hosts.md says; a newer engine may have mended it."""
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = reference.encode(f"a  {OTHER_SPACE}b").ids
    assert tokenizer.encode(f"a  {OTHER_SPACE}b").tolist() != ids
    assert tokenizer.decode(reference.encode("a\uffffb").ids) == "a\ufffd"
    assert tokenizer.decode(reference.encode("<sop>").ids) == "\ufffd"
    assert reference.decode(reference.encode("<sop>").ids) == ""


def test_padding_on_the_left_is_tokens_to_the_engine(folder: Path, model: Any) -> None:
    """As docs/hosts.md says: the engine's mask has no zero for it, so the graph reads it."""
    content = json.loads((folder / "genai_config.json").read_text("utf-8"))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, batch_size=2, max_length=9)
    pad = content["model"]["pad_token_id"]
    masks = {}
    for side, row in {"left": [pad, pad, 5], "right": [5, pad, pad]}.items():
        generator = genai.Generator(model, parameters)
        generator.append_tokens(np.array([row, [5, 6, 7]], np.int32))
        masks[side] = np.asarray(generator.get_input("attention_mask")).tolist()
    assert masks == {"left": [[1, 1, 1], [1, 1, 1]], "right": [[1, 0, 0], [1, 1, 1]]}


def test_lines(tokenizer: Any, folder: Path) -> None:
    """Ids of all kinds of lines, and their text."""
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    others = 0
    for line in make_lines(20_000):
        if "\0" in line:  # ends a text in C
            continue
        ids = reference.encode(line, add_special_tokens=False).ids
        is_same = tokenizer.encode(line).tolist() == ids
        others += not is_same
        assert is_same or f"  {OTHER_SPACE}" in line, line
        text = reference.decode(ids)
        if text and "\uffff" not in text and "\ufffe" not in text:
            assert tokenizer.decode(ids) == text, line
    assert others < 20


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.exhaustive if name in VARIANTS else ())
        for name in sorted(EXPRESSED)
    ],
)
def test_plain_template(name: str, tokenizer: Any) -> None:
    """What the engine's Jinja cannot do, the plain template of the chat table does."""
    template = ChatTemplate(EXPRESSED[name], {"bos_token": "[gMASK]"})
    table = build_chat_table(template)
    assert table is not None
    for messages in generate_conversations(table, seed=2):
        if any(OTHER_STRIP in str(message["content"]) for message in messages):
            continue
        rendered = tokenizer.apply_chat_template(
            json.dumps(messages), template_str=write_jinja(table), add_generation_prompt=True
        )
        assert rendered == table.render(messages)


def test_guidance(model: Any, tokenizer: Any, vectors: list[dict[str, Any]]) -> None:
    """Its own guidance, on our tokenizer."""
    parameters = genai.GeneratorParams(model)
    ids = vectors[0]["token_ids"]
    parameters.set_search_options(do_sample=False, max_length=len(ids) + 64)
    parameters.set_guidance("regex", "[A-Z][a-z]{2,9} [0-9]{1,3}:[0-9]{1,3}")
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids)
    answer = tokenizer.decode(_finish(generator, len(ids)))
    assert re.fullmatch("[A-Z][a-z]{2,9} [0-9]{1,3}:[0-9]{1,3}", answer)


def test_cancel(model: Any, vectors: list[dict[str, Any]]) -> None:
    generator = _start(model, vectors[0]["token_ids"], 64)
    generator.generate_next_token()
    generator.set_runtime_option("terminate_session", "1")
    with pytest.raises(Exception, match=r"[Tt]erminat"):
        generator.generate_next_token()


def _break_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:1000])


def _break_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b'{"model": ')


def _remove_data(folder: Path) -> None:
    (folder / "model.onnx.data").unlink()


def _truncate_data(folder: Path) -> None:
    data = (folder / "model.onnx.data").read_bytes()
    (folder / "model.onnx.data").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("damage", [_break_graph, _break_tokenizer, _remove_data, _truncate_data])
def test_damaged_folder(damage: Any, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    damage(broken)
    with pytest.raises(Exception, match=r"\w{5,}"):
        genai.Tokenizer(genai.Model(str(broken)))


def test_prompt_beyond_the_context(model: Any) -> None:
    parameters = genai.GeneratorParams(model)
    generator = genai.Generator(model, parameters)
    with pytest.raises(Exception, match=r"max_length|max length"):
        generator.append_tokens([5] * 5000)


def read_vectors(folder: Path) -> list[dict[str, Any]]:
    content: dict[str, Any] = json.loads((folder / "conformance.json").read_text("utf-8"))
    return list(content["vectors"])


def _start(model: Any, ids: list[int], count: int) -> Any:
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(ids) + count)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids)
    return generator


def _finish(generator: Any, prompt_length: int) -> list[int]:
    def steps() -> Iterator[None]:
        while not generator.is_done():
            yield generator.generate_next_token()

    for _ in steps():
        pass
    tokens: list[int] = generator.get_sequence(0).tolist()[prompt_length:]
    return tokens
