"""Models of the GLM family that are not supported, so that they are refused by their names.

Some have the `model_type` of a supported model and differ in other values of config.json.
Source: the published config.json files, and the model types of transformers 5.24.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_TEXT_MODEL = "give a model for text alone, for example GLM-4-9B-0414"
_DENSE_MODEL = "give a dense model, for example GLM-4-9B-0414 or GLM-4-32B-0414"
_LATER_MODEL = "give a later model, for example ChatGLM3-6B, GLM-4-9B-chat or GLM-4-9B-0414"
_PARTS = ("_text", "_vision")  # parts of a model that have a model_type of their own


@dataclass(frozen=True)
class OtherModel:
    """A model that is not supported.

    Attributes:
        name: names of released models.
        reason: the kind of model, in the plural.
        advice: what to do instead.
    """

    name: str
    reason: str
    advice: str


def _images(name: str) -> OtherModel:
    return OtherModel(name, "models that read images", _TEXT_MODEL)


def _experts(name: str) -> OtherModel:
    return OtherModel(name, "mixtures of experts", _DENSE_MODEL)


def _earlier(name: str) -> OtherModel:
    return OtherModel(name, "models of that generation", _LATER_MODEL)


_BY_TYPE: Mapping[str, OtherModel] = MappingProxyType(
    {
        "glm4_moe": _experts("GLM-4.5, GLM-4.6 or GLM-4.7"),
        "glm4_moe_lite": _experts("GLM-4.7-Flash"),
        "glm_moe_dsa": _experts("GLM-5"),
        "glm5_next": _experts("GLM-5.3-Flash"),
        "glm4v": _images("GLM-4.1V or GLM-4.6V-Flash"),
        "glm46v": _images("GLM-4.6V-Flash"),
        "glmga": _images("a model of the GLM-4.6V family"),
        "glm4v_moe": _images("GLM-4.5V or GLM-4.6V"),
        "glm_ocr": _images("GLM-OCR"),
        "glm_image": OtherModel("GLM-Image", "models that make images", _TEXT_MODEL),
        "glmasr": OtherModel("GLM-ASR", "models that read sound", _TEXT_MODEL),
        "glm-130b": _earlier("GLM-130B"),
        "glm130b": _earlier("GLM-130B"),
    }
)
_WITH_VISION: Mapping[str, str] = MappingProxyType(
    {"chatglm": "GLM-4V-9B or CogAgent-9B", "glm": "GLM-Edge-V"}
)


def find_other_model(values: Mapping[str, object]) -> OtherModel | None:
    """Return the unsupported model that the values of a config.json describe; None if unknown."""
    model_type = values.get("model_type")
    if not isinstance(model_type, str):
        return None
    if values.get("vision_config"):
        name = _WITH_VISION.get(model_type)
        if name is not None:
            return _images(name)
    if model_type == "chatglm" and not {"ffn_hidden_size", "padded_vocab_size"} & set(values):
        if "image_length" in values or "eva_config" in values:
            return _images("VisualGLM-6B")
        return _earlier("ChatGLM-6B")
    if model_type == "glm" and "block_position_encoding" in values:
        return _earlier("GLM-10B or another GLM of 2021")
    kind = model_type.lower()
    for part in _PARTS:
        kind = kind.removesuffix(part)
    return _BY_TYPE.get(kind)
