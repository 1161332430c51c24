"""`genai_config.json`, with which onnxruntime-genai runs the folder.

The fields are those of onnxruntime-genai 0.18
(https://onnxruntime.ai/docs/genai/reference/config.html).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from glm_export.model.architectures import DecoderConfig
from glm_export.plan.options import ExportOptions
from glm_export.tokenizer.token_ids import TokenIds
from glm_runtime.folder.manifest import MODEL_NAME

FILE_NAME = "genai_config.json"
# Keys that a generation_config.json may set, and the defaults of transformers.
_SEARCH_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "do_sample": False,
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "min_length": 0,
    }
)
# Each generator reserves a KV cache of `max_length` tokens.
_MOST_CACHE_BYTES = 4 << 30
_LENGTH_STEP = 1024
# Decoding steps are not captured as CUDA graphs, since their shapes change with the length.
_PROVIDERS: Mapping[str, list[dict[str, dict[str, str]]]] = MappingProxyType(
    {"cpu": [], "cuda": [{"cuda": {"enable_cuda_graph": "0"}}]}
)


def build_genai_config(
    config: DecoderConfig,
    ids: TokenIds,
    generation: Mapping[str, Any],
    options: ExportOptions,
) -> dict[str, Any]:
    """Build the content of the file.

    The number of threads depends on the machine, so it is written only if the options set it.
    """
    session_options: dict[str, Any] = {
        "log_id": "glm-export",
        "provider_options": _PROVIDERS[options.target],
    }
    if options.threads is not None:
        session_options["intra_op_num_threads"] = options.threads
    chosen = {key: generation.get(key) for key in _SEARCH_DEFAULTS}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    return {
        "model": {
            "type": "chatglm",
            "bos_token_id": ids.eos[0] if ids.bos is None else ids.bos,
            "eos_token_id": list(ids.eos),
            "pad_token_id": ids.eos[0] if ids.pad is None else ids.pad,
            "context_length": config.context_length,
            "vocab_size": config.vocab_size,
            "decoder": _describe_decoder(config) | {"session_options": session_options},
        },
        "search": {
            **_SEARCH_DEFAULTS,
            **chosen,
            "max_length": choose_length(config, options),
            "past_present_share_buffer": True,
        },
    }


def choose_length(config: DecoderConfig, options: ExportOptions) -> int:
    """Return the default `max_length`: the context, limited to a KV cache of 4 GiB."""
    number_bytes = {"fp16": 2, "fp32": 4}[options.chosen_dtype]
    if options.kv_cache == "int8":
        number_bytes = 1
    token_bytes = 2 * config.num_layers * config.key_value_size * number_bytes
    steps = _MOST_CACHE_BYTES // (token_bytes * _LENGTH_STEP)
    return min(config.context_length, max(steps, 1) * _LENGTH_STEP)


def _describe_decoder(config: DecoderConfig) -> dict[str, Any]:
    cache = {
        side: {f"{side}_{kind}_names": f"{prefix}.%d.{kind}" for kind in ("key", "value")}
        for side, prefix in (("past", "past_key_values"), ("present", "present"))
    }
    return {
        "filename": MODEL_NAME,
        "head_size": config.head_dim,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **cache["past"]},
        "outputs": {"logits": "logits", **cache["present"]},
    }
