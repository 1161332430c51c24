"""A tokenizer that adds [gMASK]<sop> to every text, as those of glm-4-9b-chat-hf do.

lm-eval's `hf` reads these tokens twice where the text already begins with them. The numbers must
be the same, and the user must be told.
"""

import json
import logging
import shutil
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")

from glm_export import ExportOptions, export
from support.harness_models import SAMPLE, ask, open_ours, open_theirs

PAIRS = [
    ("In the beginning", " God created"),
    ("", "In the beginning"),
    ("[gMASK]<sop>In the", " beginning"),
    ("<|user|>\nRecite", " John"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = Path(shutil.copytree(SAMPLE, tmp_path_factory.mktemp("prefix") / "checkpoint"))
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    ids = {token["content"]: token["id"] for token in content["added_tokens"]}
    special = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("[gMASK]", "<sop>")]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [*special, text],
        "pair": [*special, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [ids[name]], "tokens": [name]}
            for name in ("[gMASK]", "<sop>")
        },
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def prefixed(checkpoint: Path) -> Path:
    output = checkpoint.parent / "folder"
    export(ExportOptions(checkpoint, output, quant="none", verify="none"))
    return output


@pytest.mark.parametrize("adds", [None, True, False])
def test_prefixes_are_those_of_hf(prefixed: Path, checkpoint: Path, adds: bool | None) -> None:
    ours = open_ours(prefixed, add_bos_token=adds)
    theirs = open_theirs(prefixed, checkpoint, add_bos_token=adds)
    for context, continuation in PAIRS[2:]:
        assert ours._encode_pair(context, continuation) == theirs._encode_pair(
            context, continuation
        )
    starts = ours.tok_encode("In")[:2] == ours.tok_encode("[gMASK]<sop>", False)
    assert starts == (adds is not False)
    requests = ask("loglikelihood", *PAIRS)
    found = ours.loglikelihood(requests, True)
    expected = theirs.loglikelihood(requests, True)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], abs=1e-3)
    rolling = ask("loglikelihood_rolling", ("In the beginning",), ("[gMASK]<sop>In",))
    assert ours.loglikelihood_rolling(rolling, True) == pytest.approx(
        theirs.loglikelihood_rolling(rolling, True), abs=1e-3
    )
    wish = {"until": ["."], "max_gen_toks": 6}
    answers = ask("generate_until", ("In the beginning", wish), ("[gMASK]<sop>In the", wish))
    assert ours.generate_until(answers, True) == theirs.generate_until(answers, True)


def test_doubled_prefixes_are_told_once(prefixed: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "glm_lm_eval"):
        ours = open_ours(prefixed)
        ours.tok_encode("In the beginning")
        assert not caplog.records
        ours.tok_encode("[gMASK]<sop>In")
        ours.tok_encode("[gMASK]<sop>In")
    assert [record.getMessage() for record in caplog.records] == [
        "The tokenizer adds [gMASK]<sop> to texts that begin with it, as in lm-eval's model hf; "
        "add add_bos_token=False to --model_args."
    ]
    silent = open_ours(prefixed, add_bos_token=False)
    assert len(silent.tok_encode("[gMASK]<sop>In")) == len(ours.tok_encode("[gMASK]<sop>In")) - 2


def test_another_prefix_token_can_be_chosen(prefixed: Path, checkpoint: Path) -> None:
    token = open_ours(prefixed).model.tokenizer.find_id("<sop>")
    ours = open_ours(prefixed, prefix_token_id=token, add_bos_token=False)
    theirs = open_theirs(prefixed, checkpoint, prefix_token_id=token, add_bos_token=False)
    requests = ask("loglikelihood", ("", "In the beginning"), ("", "<sop>In"))
    found = [one for one, _ in ours.loglikelihood(requests, True)]
    assert found == pytest.approx(
        [one for one, _ in theirs.loglikelihood(requests, True)], abs=1e-3
    )
