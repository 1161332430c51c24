"""The families of variants: our recipes, ONNX Runtime's quantizer, llama.cpp's file types.

Read `variants.py` for what is compared, `judge.py` for how, and `peers/ort_quantizer.py` and
`peers/llama_cpp.py` for how the peers' files are made and run.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import glm_export
import glm_quantize
from benchmarks.peers.environments import REQUIREMENTS, provide_python
from benchmarks.processes import ROOT, ChildError, child_environment, find_module, run_child
from benchmarks.quality.judge import (
    Candidate,
    FloatArray,
    Original,
    TokenArray,
    hash_files,
    reuse,
)
from benchmarks.quality.variants import LLAMA, ORT, OURS, OrtVariant, Recipe
from glm_export import ExportOptions
from glm_export.graph.logits_session import GraphSession

_PEERS = ROOT / "benchmarks" / "peers"
_SCRIPTS = (_PEERS / "llama_cpp.py", _PEERS / "gguf_file.py")
_LLAMA_CHECK = "F32"  # the converted file itself
# The rewritten graph that ONNX Runtime's variants start from.
_ORT_CHECK = OrtVariant("float32", {"method": "none", "bits": 32, "block_size": 0})
_TAIL_CHARACTERS = 2000


@dataclass(frozen=True)
class Setting:
    """The checkpoint, its hidden states, and the folder that keeps the variants."""

    checkpoint: Path
    original: Original
    work: Path

    def hash_checkpoint(self) -> str:
        """Fingerprint of the checkpoint."""
        weights = sorted(self.checkpoint.glob("*.safetensors"))
        return hash_files([self.checkpoint / "config.json", *weights])

    def describe_export(self) -> dict[str, str]:
        """What our export depends on, besides its options: weights, code, packaged data."""
        folders = [Path(str(package.__file__)).parent for package in (glm_export, glm_quantize)]
        found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        sources = sorted(path for path in found if "__pycache__" not in path.parts)
        return {"checkpoint": self.hash_checkpoint(), "code": hash_files(sources)}

    def count_bits(self, report: dict[str, Any]) -> float:
        """Bits per weight of a peer's file.

        Raises:
            ChildError: it does not hold the checkpoint's parameters.
        """
        parameters = self.original.parameters
        if report.get("parameters", parameters) != parameters:
            raise ChildError(
                f"a peer's file holds {report['parameters']} parameters but the checkpoint "
                f"{parameters}; a tensor is missing or doubled."
            )
        return 8 * float(report["tensor_bytes"]) / parameters


def build_ours(setting: Setting) -> list[Candidate]:
    """One candidate for each recipe."""
    sources = setting.describe_export()

    def build(recipe: Recipe) -> Candidate:
        def make(folder: Path) -> float:
            options = ExportOptions(setting.checkpoint, folder, verify="tensors", **recipe.options)
            return glm_export.export(options).bits_per_weight

        inputs = {"options": recipe.options, **sources}
        return Candidate(recipe.name, "ours", inputs, _describe_graph_runner(), make, _run_graph)

    return [build(recipe) for recipe in OURS]


def build_ort(setting: Setting) -> list[Candidate]:
    """One candidate for each variant, after the unquantized one."""
    floats = _export_floats(setting)
    sources = {
        "floats": hash_files(sorted(floats.glob("*.onnx*"))),
        "script": hash_files([_PEERS / "ort_quantizer.py"]),
        **_describe_graph_runner(),
    }

    def build(variant: OrtVariant) -> Candidate:
        def make(folder: Path) -> float:
            command = [*find_module("peers.ort_quantizer"), str(floats), str(folder)]
            child = run_child([*command, json.dumps(variant.settings)])
            return setting.count_bits(child.read_json())

        inputs = {"settings": variant.settings, **sources}
        runner = _describe_graph_runner()
        is_check = variant is _ORT_CHECK
        return Candidate(variant.name, "onnxruntime", inputs, runner, make, _run_graph, is_check)

    return [build(variant) for variant in (_ORT_CHECK, *ORT)]


def _export_floats(setting: Setting) -> Path:
    floats = setting.work / "floats"

    def make() -> dict[str, float]:
        options = ExportOptions(
            setting.checkpoint, floats, quant="none", verify="tensors", is_forced=True
        )
        return {"bits_per_weight": glm_export.export(options).bits_per_weight}

    reuse(setting.work / "floats.json", setting.describe_export(), make)
    return floats


def build_llama(setting: Setting) -> list[Candidate]:
    """One candidate for each file type, after the unquantized one, from which all are made."""
    tool = find_module("peers.llama_cpp", provide_python(setting.work, "llama-cpp"))
    script = {"script": hash_files([*_SCRIPTS, REQUIREMENTS["llama-cpp"]])}
    sources = {"checkpoint": setting.hash_checkpoint(), **script}
    floats = setting.work / "floats.gguf"
    command = [*tool, "convert", str(setting.checkpoint), str(floats)]
    reuse(setting.work / "gguf.json", sources, lambda: run_child(command).read_json())

    def build(file_type: str) -> Candidate:
        def make(folder: Path) -> float:
            folder.mkdir(parents=True)
            target = str(folder / "model.gguf")
            child = run_child([*tool, "quantize", str(floats), target, file_type])
            return setting.count_bits(child.read_json())

        def run(folder: Path, windows: Sequence[TokenArray]) -> Iterator[FloatArray]:
            vocab_size = setting.original.head.shape[0]
            return _run_gguf(tool, folder / "model.gguf", windows, vocab_size)

        inputs = {"file_type": file_type, **sources}
        is_check = file_type == _LLAMA_CHECK
        return Candidate(file_type, "llama.cpp", inputs, script, make, run, is_check)

    return [build(file_type) for file_type in (_LLAMA_CHECK, *LLAMA)]


def _run_gguf(
    tool: Sequence[str], path: Path, windows: Sequence[TokenArray], vocab_size: int
) -> Iterator[FloatArray]:
    """Stream the logits, window by window, out of a child process."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as errors:
        asked = Path(scratch) / "windows.json"
        asked.write_text(json.dumps([window.tolist() for window in windows]), encoding="utf-8")
        command = [*tool, "logits", str(path), str(asked)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=child_environment()
        ) as child:
            assert child.stdout is not None
            for window in windows:
                size_bytes = 4 * len(window) * vocab_size
                data = bytearray(child.stdout.read(size_bytes))
                if len(data) < size_bytes:
                    break
                yield np.frombuffer(data, np.float32).reshape(len(window), vocab_size)
        if child.returncode:
            errors.seek(0)
            said = errors.read()[-_TAIL_CHARACTERS:].strip()
            raise ChildError(f"llama.cpp ended with code {child.returncode}: {said}")


def _describe_graph_runner() -> dict[str, str]:
    """What the logits of a graph depend on, besides its files."""
    return {"onnxruntime": metadata.version("onnxruntime")}


def _run_graph(folder: Path, windows: Sequence[TokenArray]) -> Iterator[FloatArray]:
    """Logits of an ONNX folder, as ONNX Runtime computes them for its users."""
    session = GraphSession(folder)
    for window in windows:
        yield session.compute_logits(window[None])[0]


FAMILIES = {"ours": build_ours, "ort": build_ort, "llama": build_llama}
