"""`optimum-cli export onnx` knows GLM-4 where our wheel is installed, and what it makes is right.

`optimum-cli` is a process of its own, so it finds the registration as users' do.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

pytest.importorskip("optimum.onnxruntime", reason="in its own environment: make test-optimum")

from optimum.exporters.tasks import TasksManager
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoModelForCausalLM, PreTrainedModel

from glm_export.optimum_config import register
from support.tiny_models import TinyShape, build_model, write_checkpoint

TASKS = {"text-generation", "feature-extraction"}
# The rotary settings are the defaults of transformers 4 too, which does not read `rope_parameters`.
# 4 heads of 48 are not the hidden size, 128, which is what Optimum would take them from.
SHAPES = {name: TinyShape(model_type=name, head_dim=48) for name in ("glm", "glm4")}
PROMPT = torch.tensor([[257, 258, 260, 10, 72, 101, 108, 108, 111]])


@pytest.fixture(scope="module", params=sorted(SHAPES))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PreTrainedModel, Path]:
    """A model as transformers computes it, and what `optimum-cli` makes of its checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder / "checkpoint", build_model(SHAPES[request.param]))
    program = Path(sys.executable).with_name("optimum-cli")
    command = [program, "export", "onnx", "--model", folder / "checkpoint"]
    task = ["--task", "text-generation-with-past"]
    result = subprocess.run(
        [*command, *task, folder / "onnx"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=torch.float32)
    return model, folder / "onnx"


@pytest.mark.parametrize("model_type", sorted(SHAPES))
def test_tasks_are_known(model_type: str) -> None:
    register()
    known = TasksManager.get_supported_tasks_for_model_type(
        model_type, "onnx", library_name="transformers"
    )
    assert set(known) == TASKS | {f"{task}-with-past" for task in TASKS}


def test_what_optimum_has_of_its_own_stays() -> None:
    register()
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model_type="glm", task="text-generation", library_name="transformers"
    )
    assert constructor.func.__module__ == "optimum.exporters.onnx.model_configs"


def test_logits_of_a_prompt_and_of_the_token_after(exported: tuple[PreTrainedModel, Path]) -> None:
    model, folder = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    with torch.no_grad():
        expected = model(torch.cat([PROMPT, PROMPT[:, :1]], dim=1)).logits.numpy()
    shape = (1, model.config.num_key_value_heads, 0, model.config.head_dim)
    names = [value.name for value in session.get_inputs() if value.name.startswith("past")]
    past = {name: np.zeros(shape, np.float32) for name in names}
    first = run(session, PROMPT.numpy(), past)
    np.testing.assert_allclose(first["logits"], expected[:, :-1], atol=1e-4)
    past = {name: first[name.replace("past_key_values", "present")] for name in names}
    second = run(session, PROMPT[:, :1].numpy(), past)
    np.testing.assert_allclose(second["logits"], expected[:, -1:], atol=1e-4)


def test_the_same_tokens(exported: tuple[PreTrainedModel, Path]) -> None:
    """Of a model whose cache Optimum would make with the wrong head size."""
    register()
    model, folder = exported
    rows = {"input_ids": PROMPT, "attention_mask": torch.ones_like(PROMPT)}
    choices = {"do_sample": False, "max_new_tokens": 24}
    theirs = ORTModelForCausalLM.from_pretrained(folder)
    assert theirs.generate(**rows, **choices).equal(model.generate(**rows, **choices))


def run(
    session: onnxruntime.InferenceSession, ids: np.ndarray, past: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    start = next(iter(past.values())).shape[2]
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones((1, start + ids.shape[1]), np.int64),
        "position_ids": np.arange(start, start + ids.shape[1])[None],
    }
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs | past), strict=True))
