"""onnxruntime-genai runs the folder as it is and gives the same greedy tokens."""

from pathlib import Path

import pytest

import glm_runtime
from glm_export import ExportOptions, export
from glm_runtime import GenerationSettings, SamplingSettings

genai = pytest.importorskip("onnxruntime_genai", reason="needs the extra `peers`")
SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
PROMPT = "[gMASK]<sop><|user|>\nRecite John 3:16.<|assistant|>\n"


@pytest.mark.parametrize(
    "choices", [{}, {"target": "cuda"}, {"kv_cache": "int8"}], ids=["plain", "cuda", "int8 cache"]
)
def test_same_ids_and_tokens(choices: dict[str, str], tmp_path: Path) -> None:
    """A folder for CUDA is run on the CPU here: float16, two outputs more."""
    folder = tmp_path / "int4"
    export(ExportOptions(SAMPLE, folder, method="rtn", verify="none", threads=2, **choices))
    ours = glm_runtime.load(folder, device="cpu")
    settings = GenerationSettings(SamplingSettings(temperature=0), max_new_tokens=48)
    expected = [piece.token_id for piece in ours.generate(PROMPT, settings)]
    if expected[-1] in ours.manifest.model.eos_token_ids:
        expected.pop()  # we report the token that ends the text, genai's sequence does not

    model = genai.Model(str(folder))
    ids = genai.Tokenizer(model).encode(PROMPT).tolist()
    assert ids == ours.tokenizer.encode(PROMPT)
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(ids) + 48)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    assert generator.get_sequence(0).tolist()[len(ids) :] == expected
