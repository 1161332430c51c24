"""Answers of a checkpoint and of its exported folder, one below the other, with their sizes.

    python -m sample.demo artifacts/glm4-sample artifacts/glm4-sample-int4 '背诵李白的《静夜思》。'

The original runs in PyTorch and the folder in ONNX Runtime, both with greedy decoding. `make demo`
calls this program.
"""

import argparse
from pathlib import Path

import glm_runtime
from glm_runtime.cli.terminal import format_bytes

_NEW_TOKENS = 128


def answer_with_pytorch(checkpoint: Path, question: str) -> str:
    """Return the answer of transformers in float32."""
    import torch  # noqa: PLC0415  # takes seconds, and --help needs none of it
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.inference_mode():
        tokens = model.generate(**prompt, max_new_tokens=_NEW_TOKENS, do_sample=False)
    answer: str = tokenizer.decode(
        tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return answer.strip()


def answer_with_onnxruntime(folder: Path, question: str) -> str:
    """Return the answer of the exported folder."""
    with glm_runtime.load(folder) as model:
        return model.ask(question, temperature=0, max_new_tokens=_NEW_TOKENS).strip()


def measure(folder: Path) -> str:
    """Return the size of all files of a folder."""
    return format_bytes(sum(path.stat().st_size for path in folder.iterdir() if path.is_file()))


def main() -> None:
    """Print the question, and both answers under the size of what gave them."""
    summary, _, description = __doc__.partition("\n")
    parser = argparse.ArgumentParser(description=summary, epilog=description.strip())
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    given = parser.parse_args()
    print(f"question: {given.question}")
    for name, place, answer in (
        ("original, PyTorch", given.checkpoint, answer_with_pytorch),
        ("exported, ONNX Runtime", given.folder, answer_with_onnxruntime),
    ):
        print(f"\n{name} ({place}, {measure(place)}):\n{answer(place, given.question)}")


if __name__ == "__main__":
    main()
