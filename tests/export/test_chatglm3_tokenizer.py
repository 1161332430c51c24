"""ChatGLM3's prompts have the ids that its own tokenizer gives, and its answers end.

The reference is the algorithm of the released `tokenization_chatglm.py`, written anew on the
sentencepiece package: the text is split at the special tokens, and SentencePiece encodes the pieces
between. Each test failed before: `sop` in the template became the pieces `▁s` and `op`.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from glm_export import ExportOptions, export
from glm_export.errors import CheckpointError
from glm_export.tokenizer.files import choose_template, read_tokenizer_json
from glm_runtime import load
from glm_runtime.text.chat_template import ChatTemplate
from support.chat_conversations import CONVERSATIONS
from support.chat_templates import SOP_WITHOUT_BRACKETS
from support.chatglm_checkpoints import write_chatglm
from support.tiny_models import TinyShape, build_model

DATA = Path(__file__).parents[2] / "export" / "glm_export" / "data"
NAMES = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
PIECES = 3000
# "sop" inside a word is left out: the original splits it, and so do we; see the last test.
PLAIN = ("system", "turns", "two systems", "earlier thoughts", "control tokens in a text", "braces")


@pytest.fixture(scope="module")
def model() -> bytes:
    lines = (DATA / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in lines if len(line) < 3000),
        model_writer=written,
        vocab_size=PIECES,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return written.getvalue()


def write_tokenizer(folder: Path, model: bytes, **config: Any) -> None:
    """Write tokenizer.model, and tokenizer_config.json as the released one, or changed."""
    count = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True}
    added = {
        str(count + place): {"content": name, "special": False, **flags}
        for place, name in enumerate((*NAMES, *ROLES))
        if name in ("[gMASK]", "sop", *ROLES)
    }
    content = {"added_tokens_decoder": added, "chat_template": SOP_WITHOUT_BRACKETS, **config}
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    (folder / "tokenization_chatglm.py").write_text("raise SystemExit  # <|assistant|>\n")


def encode_as_released(model: bytes, text: str) -> list[int]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    count = processor.vocab_size()
    special = {name: count + place for place, name in enumerate((*NAMES, *ROLES))}
    ids: list[int] = []
    for piece in re.split("(" + "|".join(map(re.escape, special)) + ")", text):
        if piece:
            ids += [special[piece]] if piece in special else processor.encode(piece)
    return ids


@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("name", PLAIN)
def test_ids_of_the_rendered_template(
    name: str, is_listed: bool, model: bytes, tmp_path: Path
) -> None:
    """Whether `added_tokens_decoder` lists the tokens or the template alone has `sop`."""
    write_tokenizer(tmp_path, model, **({} if is_listed else {"added_tokens_decoder": {}}))
    tokenizer = Tokenizer.from_buffer(read_tokenizer_json(tmp_path))
    text = render_jinja_template(
        [CONVERSATIONS[name].messages],
        chat_template=SOP_WITHOUT_BRACKETS,
        add_generation_prompt=True,
    )[0][0]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == encode_as_released(model, text)
    assert len([id_ for id_ in ids if id_ >= tokenizer.token_to_id("sop")]) >= 2


def test_our_own_template_writes_the_token_that_the_checkpoint_names(
    model: bytes, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, model, chat_template=None)
    tokenizer = Tokenizer.from_buffer(read_tokenizer_json(tmp_path))
    source = choose_template(tmp_path)
    assert source is not None
    text = ChatTemplate(source).render([{"role": "user", "content": "你好"}])
    assert text.startswith("[gMASK]sop<|user|>")
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert ids == encode_as_released(model, text)


def test_added_tokens_of_a_tuned_model(model: bytes, tmp_path: Path) -> None:
    """A token after the known ones gets its id; one with a gap is refused."""
    write_tokenizer(tmp_path, model)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    last = max(map(int, config["added_tokens_decoder"]))
    config["added_tokens_decoder"][str(last + 1)] = {"content": "<tool>", "special": True}
    path.write_text(json.dumps(config))
    tokenizer = Tokenizer.from_buffer(read_tokenizer_json(tmp_path))
    assert tokenizer.token_to_id("<tool>") == last + 1
    config["added_tokens_decoder"][str(last + 3)] = {"content": "<gap>"}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"the id {last + 3} where {last + 2} is next"):
        read_tokenizer_json(tmp_path)


def test_a_word_with_sop_is_plain_where_no_checkpoint_writes_it_bare(
    model: bytes, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path, model, added_tokens_decoder={}, chat_template=None)
    tokenizer = Tokenizer.from_buffer(read_tokenizer_json(tmp_path))
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    text = "a sophisticated eop"
    assert tokenizer.encode(text, add_special_tokens=False).ids == original.encode(text)


def test_an_exported_folder_stops_where_chatglm3_does(model: bytes, tmp_path: Path) -> None:
    """The released config.json names `</s>` alone."""
    checkpoint = write_chatglm(
        tmp_path / "checkpoint",
        build_model(TinyShape(model_type="glm", vocab_size=3072, eos_token_ids=(2,))),
        1.0,
    )
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "chat_template.jinja").unlink()
    write_tokenizer(checkpoint, model)
    config = json.loads((checkpoint / "config.json").read_text()) | {"eos_token_id": 2}
    (checkpoint / "config.json").write_text(json.dumps(config | {"pad_token_id": 0}))
    output = tmp_path / "out"
    export(ExportOptions(checkpoint, output, quant="none", verify="none"))
    loaded = load(output, device="cpu")
    stops = [2, *(loaded.tokenizer.find_id(name) for name in ("<|user|>", "<|observation|>"))]
    assert list(loaded.manifest.model.eos_token_ids) == stops
    for name, key in (("generation_config.json", None), ("genai_config.json", "model")):
        content = json.loads((output / name).read_text())
        assert (content if key is None else content[key])["eos_token_id"] == stops
    prompt = loaded.prepare_chat([{"role": "user", "content": "Hi"}])
    assert prompt.token_ids == encode_as_released(model, "[gMASK]sop<|user|>\n Hi<|assistant|>")
