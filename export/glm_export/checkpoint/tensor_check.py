"""Every expected tensor is there with its shape, and no other: else the likely cause is named."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from glm_export.checkpoint.checkpoint import Checkpoint
from glm_export.checkpoint.safetensors_header import StoredTensor
from glm_export.checkpoint.tensor_names import is_computed
from glm_export.errors import CheckpointError
from glm_export.model.architectures import ParameterSource

_SAME_REVISION = "check that config.json and the weights come from the same revision"
_SAME_REPOSITORY = "give config.json of the same repository"
# Patterns of surplus names, and what they mean and what to do; the first that matches is said.
_CAUSES = (
    (
        r"\.lora_|\.base_layer\.|\.modules_to_save\.",
        "the weights hold a LoRA adapter that is not merged; merge it with PEFT (merge_and_unload, "
        "save_pretrained) and give the merged model",
    ),
    (
        r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale(_inv)?|weight\.absmax)$",
        "the weights are quantized in a way that config.json's quantization_config does not "
        "describe; give config.json of the same repository, or a checkpoint that is not quantized",
    ),
    (
        r"(^|\.)prefix_encoder\.",
        "the weights hold the prefix of P-Tuning, which is not supported; give the model that was "
        "tuned",
    ),
    (
        r"(^|\.)(score|classifier|classifier_head|v_head|value_head|reward_head|qa_outputs)\.",
        "the checkpoint is a classifier or a reward model, which generates no text; give the model "
        "that it was made from",
    ),
    (
        r"(^|\.)(visual|vision|vision_tower|vision_model|image_\w+)\.",
        "the model reads images, which is not supported; give a model for text alone, for example "
        "GLM-4-9B-0414",
    ),
    (
        r"\.mlp\.(experts|shared_experts|gate)\.",
        "the model is a mixture of experts, which is not supported; give a dense model, for "
        "example GLM-4-9B-0414",
    ),
)
# Beginnings of names that only one layout has, and the layout.
_LAYOUTS = (("transformer.", "`chatglm`"), ("model.", "`glm` or `glm4`"))
_GLM4_NORM = re.compile(r"\.(post_self_attn_layernorm|post_mlp_layernorm)\.")
_LAYER = re.compile(r"\blayers\.(\d{1,9})\.")


def check_tensors(
    checkpoint: Checkpoint,
    parameters: Mapping[str, ParameterSource],
    quantized: Mapping[str, Collection[str]],
    ignored: Collection[str],
) -> None:
    """Check names, shapes and types of a checkpoint's tensors.

    Args:
        checkpoint: what is there.
        parameters: what is expected.
        quantized: parameter -> the tensors, checked already, that stand in place of its floats.
        ignored: may be there or not.

    Raises:
        CheckpointError: names the first missing or surplus tensor and the likely cause, or the two
            shapes where they differ.
    """
    expected = {
        name: shape
        for parameter, source in parameters.items()
        if parameter not in quantized
        for name, shape in source.tensors
    }
    missing = [name for name in expected if name not in checkpoint.tensors]
    known = set(expected).union(ignored, *quantized.values())
    surplus = [name for name in checkpoint.tensors if name not in known and not is_computed(name)]
    if missing:
        raise _refuse_missing(checkpoint, missing, expected, sorted(surplus))
    for name, shape in expected.items():
        _check_shape(checkpoint.tensors[name], shape)
        checkpoint.require_float(name)
    if surplus:
        name, cause = _find_cause(sorted(surplus), expected)
        first = checkpoint.tensors[name].name
        more = f" and {len(surplus) - 1} more do" if len(surplus) > 1 else " does"
        raise CheckpointError(f"{first}{more} not belong to this model; {cause or _SAME_REVISION}.")


def _check_shape(found: StoredTensor, shape: tuple[int, ...]) -> None:
    if found.shape != shape:
        reason = "check that both come from the same revision"
        if 0 in found.shape:
            reason = (
                "it is empty, as DeepSpeed ZeRO-3 saves a model whose weights were not gathered; "
                "make a whole checkpoint with zero_to_fp32.py, or save again with "
                "stage3_gather_16bit_weights_on_model_save"
            )
        raise CheckpointError(
            f"{found.name} is {list(found.shape)} but config.json makes it {list(shape)}; {reason}."
        )


def _refuse_missing(
    checkpoint: Checkpoint,
    missing: list[str],
    expected: Mapping[str, tuple[int, ...]],
    surplus: list[str],
) -> CheckpointError:
    first = f"{missing[0]} {list(expected[missing[0]])}"
    if surplus:
        name, cause = _find_cause(surplus, expected)
        counts = f"missing: {len(missing)}, there instead: {len(surplus)}"
        return CheckpointError(
            f"{first} is missing and {checkpoint.tensors[name].name} is there instead ({counts}); "
            f"{cause or _SAME_REVISION}."
        )
    advice = "; ".join(_advise_on_missing(checkpoint, missing, expected))
    return CheckpointError(f"{first} is missing; {advice}.")


def _advise_on_missing(
    checkpoint: Checkpoint, missing: list[str], expected: Collection[str]
) -> Iterator[str]:
    yield (
        f"check that all weight files are in {checkpoint.folder}, are named by its index if it has "
        "one, and belong to this config.json"
    )
    stored_layers, layers = _count_layers(checkpoint.tensors), _count_layers(expected)
    if stored_layers < layers:
        yield f"the number of layers is {layers} in config.json and {stored_layers} in the weights"
    if len(missing) == 1 and re.search(r"lm_head|output_layer", missing[0]):
        yield "if the head is the embedding, config.json must say tie_word_embeddings true"
    if checkpoint.files.unused:
        names = ", ".join(path.name for path in checkpoint.files.unused)
        yield f"the folder also holds {names}, which transformers would not read"


def _find_cause(surplus: list[str], expected: Collection[str]) -> tuple[str, str]:
    """Return the surplus tensor that tells the cause, and the cause; else the first one and ""."""
    for pattern, cause in _CAUSES:
        for name in surplus:
            if re.search(pattern, name):
                return name, cause
    return surplus[0], _compare_names(surplus, expected)


def _compare_names(surplus: list[str], expected: Collection[str]) -> str:
    """Say what the surplus names are, compared with the expected ones; "" if that is unknown."""
    for start, layout in _LAYOUTS:
        stored, known = (any(n.startswith(start) for n in names) for names in (surplus, expected))
        if stored and not known:
            return f"the weights have the names of a {layout} checkpoint; {_SAME_REPOSITORY}"
    stored_layers, layers = _count_layers(surplus), _count_layers(expected)
    if stored_layers > layers:
        counts = (
            f"the number of layers is {layers} in config.json and {stored_layers} in the weights"
        )
        return f"{counts}; {_SAME_REVISION}"
    if any(map(_GLM4_NORM.search, surplus)) and not any(map(_GLM4_NORM.search, expected)):
        return f"the weights have the norms of a `glm4` checkpoint; {_SAME_REPOSITORY}"
    return ""


def _count_layers(names: Iterable[str]) -> int:
    found = (_LAYER.search(name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)
