"""The route a user has without us: mobius-onnx to float32 ONNX, then ONNX Runtime's quantizer.

    python -m benchmarks.peers.mobius CHECKPOINT DIR

Runs in an environment of its own (`mobius-requirements.txt`). Both tools are called by their own
command lines, with settings as near to ours as they have: 4 bits, blocks of 32, asymmetric,
accuracy level 4, embedding and head too. mobius-onnx 0.1.0 needs three edits by hand, which are the
functions `edit_*`. They are found, checked and made here in no time, which favours the route.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save_file

from benchmarks.processes import run_child


def build(checkpoint: Path, folder: Path) -> dict[str, float]:
    """Checkpoint to float32 ONNX with GroupQueryAttention.

    float32, because a bfloat16 graph is what ONNX Runtime's CPU provider refuses to run.
    """
    command = [sys.executable, "-m", "mobius", "build", "--config", str(checkpoint), str(folder)]
    return _run([*command, "--ep", "cpu", "--dtype", "f32", "--runtime", "ort-genai"])


def quantize(source: Path, target: Path) -> dict[str, float]:
    """Float32 ONNX to MatMulNBits and GatherBlockQuantized."""
    target.mkdir()
    command = [sys.executable, "-m", "onnxruntime.quantization.matmul_nbits_quantizer"]
    paths = ["--input_model", str(source / "model.onnx")]
    paths += ["--output_model", str(target / "model.onnx")]
    scheme = ["--bits", "4", "--block_size", "32", "--symmetric", "False", "--accuracy_level", "4"]
    nodes = ["--op_types_to_quantize", "MatMul", "Gather", "--quant_axes", "MatMul:0", "Gather:1"]
    return _run([*command, *paths, *scheme, *nodes])


def edit_checkpoint(checkpoint: Path, folder: Path) -> None:
    """Edit 1: add biases of zero, in a folder of links.

    mobius reads `attention_bias` as a bias on o_proj as well, which no GLM has, and stops because
    the checkpoint lacks it ("initializer(s) without weights").
    """
    folder.mkdir()
    for path in checkpoint.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    if (folder / "model.safetensors.index.json").exists():
        sys.exit("mobius.py: a checkpoint in one file is expected; an index would need an edit too")
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    zeros = np.zeros(config["hidden_size"], np.float32)
    layers = range(config["num_hidden_layers"])
    biases = {f"model.layers.{index}.self_attn.o_proj.bias": zeros for index in layers}
    save_file(biases, folder / "o_proj_bias.safetensors", {"format": "pt"})


def edit_graph(folder: Path) -> None:
    """Edit 2: drop an attribute that ONNX Runtime 1.31 does not know ("invalid model").

    Nothing is lost: the width of the rotation tables says the same.
    """
    path = folder / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        kept = [item for item in node.attribute if item.name != "rotary_embedding_dim"]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(model, path)


def edit_config(source: Path, target: Path) -> None:
    """Edit 3: onnxruntime-genai 0.18 knows no type `glm4`; carry the small files over."""
    for path in source.iterdir():
        if not path.name.startswith("model.onnx"):
            (target / path.name).write_bytes(path.read_bytes())
    path = target / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"]["type"] = "chatglm"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _run(command: Sequence[str]) -> dict[str, float]:
    """Run one tool; gives its seconds and the kernel's maximum of its resident memory."""
    child = run_child(command)
    return {"seconds": child.seconds, "peak_rss_bytes": child.peak_rss_bytes}


def _measure_folder(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if not path.is_symlink())


def convert(checkpoint: Path, work: Path) -> Mapping[str, object]:
    """All steps; the int4 folder is `work`/int4."""
    work.mkdir(parents=True)
    linked, floats, result = work / "checkpoint", work / "float32", work / "int4"
    edit_checkpoint(checkpoint, linked)
    steps = {"build": build(linked, floats)}
    edit_graph(floats)
    steps["quantize"] = quantize(floats, result)
    edit_config(floats, result)
    return {
        "folder": str(result),
        "size_bytes": _measure_folder(result),
        "scratch_bytes": _measure_folder(floats),
        "steps": steps,
    }


if __name__ == "__main__":
    print(json.dumps(convert(Path(sys.argv[1]), Path(sys.argv[2]))))
