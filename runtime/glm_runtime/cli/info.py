"""`glm-run info` shows the manifest of a folder."""

import dataclasses
import json
from pathlib import Path

import click

from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.hub import find_folder
from glm_runtime.cli.options import folder_argument, json_option, show_examples
from glm_runtime.cli.terminal import format_bytes, format_count
from glm_runtime.errors import to_printable
from glm_runtime.folder.manifest import FORMAT_VERSION, Manifest, read_manifest
from glm_runtime.folder.manifest_entries import VerificationEntry
from glm_runtime.health import describe_chat
from glm_runtime.sampling.settings import SamplingSettings, read_sampling_defaults
from glm_runtime.text.chat_template import TABLE_NAME, TEMPLATE_NAME


@click.command(
    epilog=show_examples(
        "glm-run info artifacts/glm4-int4",
        "glm-run info artifacts/glm4-int4 --json",
        "glm-run info artifacts/glm4-int4 --json | jq .bits_per_weight",
    )
)
@folder_argument
@json_option
@debug_option
def info(folder: Path, is_json: bool) -> None:
    """Show the model, recipe, size and verification of a folder."""
    folder = find_folder(folder)
    manifest = read_manifest(folder)
    sampling = read_sampling_defaults(folder)
    click.echo(_to_json(manifest, sampling) if is_json else _describe(manifest, sampling))


def _to_json(manifest: Manifest, sampling: SamplingSettings) -> str:
    content = dataclasses.asdict(manifest)
    del content["tensors"], content["files"]
    content["source"].pop("files")
    content |= {
        "format_version": FORMAT_VERSION,
        "sampling": dataclasses.asdict(sampling),
        "has_chat_template": TEMPLATE_NAME in manifest.files,
        "has_chat_table": TABLE_NAME in manifest.files,
    }
    return json.dumps(content, ensure_ascii=False)


def _describe(manifest: Manifest, sampling: SamplingSettings) -> str:
    recipe, model, checked = manifest.recipe, manifest.model, manifest.verification
    block = "" if recipe.block_size is None else f", block {recipe.block_size}"
    metrics = "".join(f", {name} {value:.4g}" for name, value in sorted(checked.metrics.items()))
    size = format_bytes(manifest.size_bytes)
    rows = {
        "source": f"{manifest.source.name} ({manifest.source.model_type})",
        "license": manifest.source.license or "not named by the checkpoint's card",
        "recipe": f"{recipe.quant} by {recipe.method}{block}, {recipe.dtype}, for {recipe.target}",
        "parameters": format_count(manifest.parameters),
        "size": f"{size}, {manifest.bits_per_weight:.3g} bits per weight",
        "layers": f"{model.num_layers}, hidden size {model.hidden_size}",
        "heads": f"{model.num_heads} query, {model.num_kv_heads} key/value, of {model.head_dim}",
        "vocabulary": f"{model.tokenizer_vocab_size} tokens in {model.vocab_size} rows",
        "context": f"{model.context_length} tokens, cache in {model.cache_dtype}",
        "chat": describe_chat(manifest),
        "sampling": _describe_sampling(sampling),
        "verification": _describe_verification(checked) + metrics,
        "written by": f"glm-export {manifest.tool_version}, format version {FORMAT_VERSION}",
    }
    return "\n".join(f"{name:<13}{to_printable(value)}" for name, value in rows.items())


def _describe_verification(checked: VerificationEntry) -> str:
    if checked.level == "none":
        return "not verified"
    return f"{checked.level}, {'passed' if checked.is_passed else 'FAILED'}"


def _describe_sampling(sampling: SamplingSettings) -> str:
    penalty = f"repetition penalty {sampling.repetition_penalty:g}"
    if sampling.is_greedy:
        return f"greedy, {penalty}"
    return (
        f"temperature {sampling.temperature:g}, top-k {sampling.top_k}, top-p {sampling.top_p:g}, "
        f"min-p {sampling.min_p:g}, {penalty}"
    )
