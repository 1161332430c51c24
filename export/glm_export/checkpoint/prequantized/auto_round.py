"""AutoRound, `quant_method` auto-round, which packs its codes as GPTQ or as AWQ does.

`packing_format` names the layout; "auto_round" alone stores zero points unchanged, as "gptq_v2".
`extra_config` gives single layers other settings; a layer with
16 bits is stored as floats. Layers are named by their whole names, or by a regular expression.
Source: auto-round 0.16, `inference/backend.py` (GPTQ_FORMAT, GPTQ_FORMAT_NO_ZP, AWQ_FORMAT) and
`auto_round_extension/torch/`; transformers' `AutoRoundConfig`.
"""

import re
from collections.abc import Mapping
from typing import Any

from glm_export.checkpoint.prequantized.awq import AwqFormat
from glm_export.checkpoint.prequantized.description import PrequantizedFormat
from glm_export.checkpoint.prequantized.gptq import GptqFormat
from glm_export.checkpoint.prequantized.settings import read_object, require_name
from glm_export.errors import UnsupportedModelError
from glm_export.model.architectures.description import read_flag

METHOD = "auto-round"
_GPTQ = ("auto_round:auto_gptq", "auto_round:gptq")
_GPTQ_V2 = ("auto_round", "auto_round:gptqmodel")
_AWQ = ("auto_round:auto_awq", "auto_round:awq")
_OVERRIDDEN = ("bits", "group_size", "sym")
_FLOAT_BITS = 16


def read_format(settings: Mapping[str, Any]) -> PrequantizedFormat:
    """Read quantization_config as that of the layout.

    Raises:
        UnsupportedModelError: the layout is another one, or a value is not supported.
    """
    require_name(settings, "packing_format", *_GPTQ, *_GPTQ_V2, *_AWQ)
    require_name(settings, "data_type", "int")
    overrides = _read_overrides(settings)
    shared = {key: settings.get(key) for key in ("bits", "group_size")}
    packing = settings.get("packing_format") or _GPTQ[0]
    if packing.lower() not in _AWQ:
        version = "gptq_v2" if packing.lower() in _GPTQ_V2 else "gptq"
        own = {"sym": read_flag(settings, "sym", True), "checkpoint_format": version}
        return GptqFormat({**shared, **own, "dynamic": overrides})
    for name, values in overrides.items():
        if any(values[key] != shared.get(key) for key in values if key in shared):
            raise UnsupportedModelError(
                f"config.json's extra_config gives {name} other settings than the rest, which "
                f"packing_format={packing!r} does not read; use a checkpoint in the packing "
                f"{_GPTQ[0]!r}."
            )
    return AwqFormat(shared)


def _read_overrides(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of single quantized layers by regular expression."""
    found: dict[str, dict[str, Any]] = {}
    extra = read_object(settings, "extra_config")
    for name in extra:
        values = read_object(extra, name)
        changes = {key: values[key] for key in _OVERRIDDEN if values.get(key) is not None}
        bits = changes.get("bits")
        if changes and not (isinstance(bits, int) and bits >= _FLOAT_BITS):
            require_name(values, "data_type", "int")
            is_name = re.fullmatch(r"[\w.]+", name) is not None
            found[f"{re.escape(name)}$" if is_name else f".*(?:{name})"] = changes
    return found
