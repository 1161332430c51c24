"""The original against the folder, on a text: what exporting and quantizing cost.

The original is the PyTorch decoder in float32, run layer by layer (memory: one layer, the head,
activations); the folder is run by ONNX Runtime as it will be by its users.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from glm_export.architectures import DecoderConfig, check_tensors, find_architecture
from glm_export.checkpoint import open_checkpoint
from glm_export.comparison import Comparer, Comparison
from glm_export.errors import OptionsError, VerificationError
from glm_export.graph_session import GraphSession, TokenArray
from glm_export.packages import require_onnxruntime
from glm_export.reference import ReferenceDecoder, read_from_checkpoint
from glm_runtime.manifest import Manifest, check_files, read_manifest
from glm_runtime.tokenizer import read_tokenizer

WindowProgress = Callable[[str, int, int], None]
_SHORTEST_WINDOW = 2
# What the manifest and the decoder's config both say of a model.
_SHAPE_FIELDS = (
    "num_layers",
    "hidden_size",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "vocab_size",
    "context_length",
)


@dataclass(frozen=True)
class EvaluationOptions:
    """One evaluation.

    Attributes:
        checkpoint: the original.
        folder: the export.
        text: UTF-8 file; None: the bilingual text that ships with the package.
        window: tokens per window; each starts at position 0 without any prefix.
        max_tokens: of a longer text, so many are read, in windows spread evenly over it.
    """

    checkpoint: Path
    folder: Path
    text: Path | None = None
    window: int = 512
    max_tokens: int = 16384

    def __post_init__(self) -> None:
        """Refuse windows that predict nothing."""
        if self.window < _SHORTEST_WINDOW:
            raise OptionsError(f"window is {self.window}; choose {_SHORTEST_WINDOW} or more.")
        if self.max_tokens < _SHORTEST_WINDOW:
            raise OptionsError(
                f"max tokens is {self.max_tokens}; choose {_SHORTEST_WINDOW} or more."
            )


@dataclass(frozen=True)
class EvaluationReport:
    """What the folder lost, and its size."""

    comparison: Comparison
    manifest: Manifest


def evaluate(options: EvaluationOptions, progress: WindowProgress) -> EvaluationReport:
    """Compare a folder with its original.

    Args:
        options: what to compare on which text.
        progress: called with (stage, done, total).

    Raises:
        ExportError: the checkpoint is broken or unsupported, or a file of the folder was changed.
        FolderError: the folder is none of ours, or of a newer format.
        OptionsError: the text is missing, not UTF-8 or too short, or the folder is another model's.
    """
    require_onnxruntime()
    checkpoint = open_checkpoint(options.checkpoint)
    architecture = find_architecture(checkpoint)
    config = architecture.read_config(checkpoint.config)
    parameters = dict(architecture.locate_parameters(config))
    check_tensors(checkpoint, parameters)
    manifest = _open_folder(options.folder, config)
    size = min(options.window, config.context_length)
    windows = _split_windows(_tokenize(options), size, options.max_tokens)
    reference = ReferenceDecoder(config, read_from_checkpoint(checkpoint, parameters))
    progress("running the original", 0, len(windows))
    hidden = [reference.hidden_states(batch) for batch in _group_by_length(windows)]
    states = [row for batch in hidden for row in batch]
    comparison = _compare(windows, states, reference.read_head(), options.folder, progress)
    _require_finite(comparison)
    return EvaluationReport(comparison, manifest)


def _open_folder(folder: Path, config: DecoderConfig) -> Manifest:
    """The manifest of a folder that is whole and has the checkpoint's shape."""
    try:
        manifest = read_manifest(folder)
        problems = check_files(folder, manifest, is_full=True)
    except OSError as error:
        raise OptionsError(f"{folder} cannot be read ({error}); check its permissions.") from error
    for problem in problems:
        if problem.is_harmful:
            raise VerificationError(
                f"in {folder}, {problem}, so its figures would mean nothing; export it again."
            )
    for name in _SHAPE_FIELDS:
        found, expected = getattr(manifest.model, name), getattr(config, name)
        if found != expected:
            raise OptionsError(
                f"{folder} has {name}={found} but the checkpoint {expected}; "
                "give the checkpoint that the folder was made from."
            )
    return manifest


@torch.inference_mode()
def _compare(
    windows: list[TokenArray],
    states: list[torch.Tensor],
    head: torch.Tensor,
    folder: Path,
    progress: WindowProgress,
) -> Comparison:
    session = GraphSession(folder)
    comparer = Comparer()
    for index, (window, state) in enumerate(zip(windows, states, strict=True)):
        candidate = torch.from_numpy(session.compute_logits(window[None])[0])
        comparer.add(state @ head.T, candidate, torch.from_numpy(window))
        progress("running the folder", index + 1, len(windows))
    return comparer.summarize()


def _require_finite(comparison: Comparison) -> None:
    for name, value in asdict(comparison).items():
        if not math.isfinite(value):
            raise VerificationError(
                f"{name} came out as {value}, so one of the two computes NaN or Inf; "
                "check that the checkpoint's weights are sound."
            )


def _tokenize(options: EvaluationOptions) -> TokenArray:
    if options.text is None:
        packaged = resources.files("glm_export").joinpath("data/evaluation.txt")
        text = packaged.read_text(encoding="utf-8")
    else:
        try:
            text = options.text.read_bytes().decode("utf-8")
        except OSError as error:
            raise OptionsError(
                f"the text {options.text} cannot be read ({error}); give a UTF-8 file."
            ) from error
        except UnicodeDecodeError as error:
            raise OptionsError(
                f"the text {options.text} is not UTF-8 ({error}); convert it first."
            ) from error
    ids = read_tokenizer(options.folder).encode(text)
    if len(ids) < _SHORTEST_WINDOW:
        raise OptionsError(
            f"the text has {len(ids)} tokens; at least {_SHORTEST_WINDOW} are needed: "
            "give a longer one."
        )
    return np.array(ids, dtype=np.int64)


def _split_windows(ids: TokenArray, size: int, max_tokens: int) -> list[TokenArray]:
    """Windows one after the other, or evenly spread ones where they would hold too many tokens.

    A last window of a single token predicts nothing and is left out.
    """
    starts = np.arange(0, len(ids), size)
    count = max(1, max_tokens // size)
    if len(starts) > count:
        starts = starts[np.arange(count) * len(starts) // count]
    windows = [ids[start : start + min(size, max_tokens)] for start in starts]
    return [window for window in windows if len(window) >= _SHORTEST_WINDOW]


def _group_by_length(windows: list[TokenArray]) -> list[TokenArray]:
    """Whole windows as one batch, a shorter last one as another: layers are then read twice."""
    groups: dict[int, list[TokenArray]] = {}
    for window in windows:
        groups.setdefault(len(window), []).append(window)
    return [np.stack(group) for group in groups.values()]
