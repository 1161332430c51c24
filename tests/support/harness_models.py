"""A folder as the model glm-onnx of lm-eval, and lm-eval's own model of the same weights."""

from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from glm_lm_eval.model import GlmOnnx
from glm_lm_eval.options import read_options
from support.dequantized import load_dequantized
from support.verse_tasks import ROOT

SAMPLE = ROOT / "artifacts" / "glm4-sample"


def open_ours(folder: Path, **options: Any) -> GlmOnnx:
    return GlmOnnx(read_options({"folder": folder, "threads": 1, **options}))


def open_theirs(folder: Path, tokenizer: Path = SAMPLE, **options: Any) -> HFLM:
    """lm-eval's `hf` with the folder's weights, dequantized, in float32."""
    model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32)
    load_dequantized(folder, model)
    return HFLM(model, tokenizer=AutoTokenizer.from_pretrained(tokenizer), **options)


def ask(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    """Requests of one kind, as lm-eval makes them of tasks."""
    return [Instance(kind, {}, args, index) for index, args in enumerate(arguments)]
