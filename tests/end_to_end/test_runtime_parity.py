"""Our runtime against transformers on the trained sample: text in, the same tokens out."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import GenerationSettings, SamplingSettings

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
MESSAGES = [
    [{"role": "user", "content": "Recite John 3:16."}],
    [{"role": "user", "content": "背诵李白的《静夜思》。"}],
    [
        {"role": "system", "content": "Answer briefly. 😀"},
        {"role": "user", "content": "Recite Genesis 1:1."},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIn the beginning"},
        {"role": "user", "content": "Go on."},
    ],
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> glm_runtime.Model:
    output = tmp_path_factory.mktemp("runtime") / "fp32"
    export(ExportOptions(SAMPLE, output, quant="none"))
    return glm_runtime.load(output, device="cpu")


@pytest.mark.parametrize("messages", MESSAGES, ids=["english", "chinese", "turns"])
def test_chat_gives_the_tokens_of_transformers(
    model: glm_runtime.Model, messages: list[dict[str, str]]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(SAMPLE)
    prompt = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    assert model.prepare_chat(messages).token_ids == prompt[0].tolist()
    original = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = original.generate(prompt, max_new_tokens=200, do_sample=False)
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=200)
    pieces = list(model.chat(messages, settings))
    new = expected[0, prompt.shape[1] :].tolist()
    assert [piece.token_id for piece in pieces] == new
    text = "".join(piece.text for piece in pieces)
    assert text == tokenizer.decode(new, skip_special_tokens=True)
