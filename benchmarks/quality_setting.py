"""What all families share: the checkpoint, what exports of it depend on, how bits are counted."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from measurement import ChildError
from quality_candidate import hash_files
from quality_original import FloatArray, Original, TokenArray

import glm_export
import glm_quantize
from glm_export.graph.logits_session import GraphSession

PEERS = Path(__file__).with_name("peers")


@dataclass(frozen=True)
class Setting:
    """The checkpoint, its answers, and where things are kept."""

    checkpoint: Path
    original: Original
    work: Path

    def hash_checkpoint(self) -> str:
        """Fingerprint of what is converted."""
        weights = sorted(self.checkpoint.glob("*.safetensors"))
        return hash_files([self.checkpoint / "config.json", *weights])

    def describe_export(self) -> dict[str, str]:
        """What an export of ours depends on, besides its options: weights, code, packaged data."""
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


def read_report(output: str) -> dict[str, Any]:
    """The JSON object in the last line of what a peer's script said."""
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def describe_graph_runner() -> dict[str, str]:
    """What the logits of a graph depend on, besides its files."""
    return {"onnxruntime": metadata.version("onnxruntime")}


def run_graph(folder: Path, windows: Sequence[TokenArray]) -> Iterator[FloatArray]:
    """Logits of an ONNX folder, as ONNX Runtime computes them for its users."""
    session = GraphSession(folder)
    for window in windows:
        yield session.compute_logits(window[None])[0]
