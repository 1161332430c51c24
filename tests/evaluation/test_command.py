"""`python -m glm_lm_eval` as a user starts it, and arguments that are refused."""

import json
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")

from lm_eval.api.registry import get_model

from glm_lm_eval.model import GlmOnnx
from glm_lm_eval.options import HarnessError, read_options
from glm_runtime import GlmRuntimeError
from support.commands import finish, start_python
from support.harness_models import ask, open_ours
from support.verse_tasks import CHOICES, CLOZE, NUM_VERSES, ROOT

RUN = "import runpy; runpy.run_module('glm_lm_eval', run_name='__main__', alter_sys=True)"


def test_the_entry_point_names_the_model() -> None:
    """Versions of lm-eval after 0.4.13 find the model by it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["lm_eval.models"]["glm-onnx"].partition(":")
    assert getattr(import_module(module), name) is GlmOnnx
    assert get_model("glm-onnx") is GlmOnnx


def test_the_command_writes_results_and_continues(
    sample_folder: Path, tasks: Path, tmp_path: Path
) -> None:
    """With --use_cache, the second run takes every response from the first one."""
    arguments = [
        *("--model", "glm-onnx", "--model_args", f"folder={sample_folder},threads=1"),
        *("--tasks", f"{CHOICES},{CLOZE}", "--include_path", tasks, "--limit", "3"),
        *("--use_cache", tmp_path / "cache", "--output_path", tmp_path / "out", "--log_samples"),
    ]
    code, out, err = finish(start_python(RUN, *arguments))
    assert code == 0, err
    assert CHOICES in out and CLOZE in out
    code, again, err = finish(start_python(RUN, *arguments))
    assert code == 0, err
    assert "Requests remaining: 0" in err
    assert again.splitlines()[-1] == out.splitlines()[-1]
    (first, second) = sorted((tmp_path / "out").rglob("results_*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in (first, second)]
    assert results[0]["results"] == results[1]["results"]
    assert results[0]["config"]["model_quantization"] == "int4"
    samples = next((tmp_path / "out").rglob(f"samples_{CHOICES}_*.jsonl"))
    assert len(samples.read_text(encoding="utf-8").splitlines()) == 3 < NUM_VERSES


def test_a_wrong_folder_is_one_sentence(tmp_path: Path, tasks: Path) -> None:
    arguments = ["--model", "glm-onnx", "--model_args", f"folder={tmp_path}", "--tasks", CLOZE]
    code, _, err = finish(start_python(RUN, *arguments, "--include_path", tasks))
    assert code == 1
    assert err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "the folder is missing"),
        (
            {"folder": "x", "max_lenght": 3},
            "'max_lenght' is not an argument of glm-onnx.*max_length",
        ),
        ({"folder": "x", "max_length": "long"}, "max_length is 'long' where a whole number"),
        ({"folder": "x", "max_length": True}, "max_length is True where a whole number"),
        ({"folder": "x", "add_bos_token": "no"}, "add_bos_token is 'no' where true or false"),
        ({"folder": "x", "chat_template": 3}, "chat_template is 3 where a text"),
        ({"folder": "x", "batch_size": 0}, "batch_size is 0 where 1 or more"),
        ({"folder": "x", "batch_size": "many"}, "batch_size is 'many' where a whole number"),
        ({"folder": "x", "enable_thinking": True}, "think_end_token is missing"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(HarnessError, match=words):
        read_options(arguments)


def test_arguments_of_lm_eval_are_read() -> None:
    given = {"folder": "x", "batch_size": "auto:4", "max_batch_size": 64, "device": None}
    assert read_options(given).batch_size == 8
    assert read_options({"folder": "x", "batch_size": "3"}).batch_size == 3


@pytest.mark.parametrize(
    ("method", "request_", "words"),
    [
        ("loglikelihood", ("In", ""), "an empty continuation"),
        ("loglikelihood", ("In", " the" * 30), "a continuation has 30 tokens .* holds 24"),
        ("generate_until", ("In", {"until": [], "num_beams": 2}), "has 'num_beams'"),
        (
            "generate_until",
            ("In", {"max_gen_toks": 24}),
            "max_gen_toks is 24 where the context of 24",
        ),
        ("generate_until", ("In", {"do_sample": True, "top_p": 3.0}), "top_p is 3.0"),
    ],
)
def test_wrong_requests_are_refused(
    sample_folder: Path, method: str, request_: tuple[Any, ...], words: str
) -> None:
    ours = open_ours(sample_folder, max_length=24, max_gen_toks=4)
    with pytest.raises(GlmRuntimeError, match=words):
        getattr(ours, method)(ask(method, request_), True)


def test_options_must_fit_the_model(sample_folder: Path) -> None:
    with pytest.raises(HarnessError, match="max_length is 5000 where the model's context has 4096"):
        open_ours(sample_folder, max_length=5000)
    with pytest.raises(HarnessError, match="prefix_token_id is 4200 where 0 to 4189 is expected"):
        open_ours(sample_folder, prefix_token_id=4200)
    ours = open_ours(sample_folder)
    with pytest.raises(HarnessError, match="add chat_template=tool_use to --model_args"):
        ours.chat_template("tool_use")


def test_sampled_answers_follow_the_seed(sample_folder: Path) -> None:
    """lm-eval seeds numpy with its --seed."""
    ours = open_ours(sample_folder)
    wish = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 12, "until": []}
    requests = ask("generate_until", *(("In the beginning", wish) for _ in range(3)))
    np.random.seed(4)
    first = ours.generate_until(requests, True)
    np.random.seed(4)
    assert ours.generate_until(requests, True) == first
    assert len(set(first)) > 1
