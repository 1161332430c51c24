"""The folder's README.md: where it comes from, how it was made, how to run it."""

from collections.abc import Iterator

from glm_runtime.folder.manifest import Manifest, RecipeEntry, SourceEntry

_TEMPLATE = """\
# {name} for ONNX Runtime

Made by glm-export {tool_version} from the `{model_type}` checkpoint `{name}`.

| | |
|---|---|
| recipe | {recipe} |
| parameters | {parameters:,} |
| bits per weight, scales included | {bits_per_weight:.2f} |
| size of the weights | {size_mb:,.1f} MB |
| context | {context_length:,} tokens |
| verification | {verification} |

What quantizing cost against the original: `glm-eval CHECKPOINT THIS_FOLDER`.

## Run it

```
pip install 'glm-export[onnxruntime]'
glm-run chat THIS_FOLDER
glm-run doctor THIS_FOLDER
```

onnxruntime-genai loads this folder as it is. Set `intra_op_num_threads` under `session_options`
in `genai_config.json` to your number of cores: without it, onnxruntime-genai was measured at half
its speed on a two-core machine.

The graph's inputs are `input_ids`, `attention_mask` and `past_key_values.{{i}}.key|value`, its
outputs `logits` and `present.{{i}}.key|value`. Logits are those of each row's last real position;
feed the optional input `num_logits_to_keep` ([1] int64) for more.

## Where it comes from

{license}

| file of the checkpoint | bytes | SHA-256 |
|---|---|---|
{sources}

<details><summary>The source of every tensor</summary>

| tensor | stored as | file of the checkpoint | its tensor |
|---|---|---|---|
{tensors}

</details>
"""
_MARKUP = "|<>`*[]\\&"
_ROTATION_TABLE = "computed from config.json"


def render_card(manifest: Manifest, data_bytes: int) -> str:
    """The card's Markdown.

    Args:
        manifest: the folder's, complete but for the card's own entry.
        data_bytes: size of the data file.
    """
    recipe = manifest.recipe
    words = [recipe.quant, recipe.dtype]
    if recipe.quant != "none":
        words += [recipe.method, *_describe_blocks(recipe)]
        words.append(f"accuracy level {recipe.accuracy_level}")
    if recipe.calibration is not None:
        words.append(f"{recipe.calibration.tokens:,} tokens of calibration text")
    if manifest.model.cache_dtype == "int8":
        words.append("int8 KV cache")
    figures = [f"{key} {value:.3g}" for key, value in manifest.verification.metrics.items()]
    return _TEMPLATE.format(
        name=manifest.source.name,
        tool_version=manifest.tool_version,
        model_type=manifest.source.model_type,
        recipe=", ".join(words),
        parameters=manifest.parameters,
        bits_per_weight=manifest.bits_per_weight,
        size_mb=data_bytes / 1e6,
        context_length=manifest.model.context_length,
        verification=", ".join([manifest.verification.level, *figures]),
        license=_describe_license(manifest.source),
        sources="\n".join(_list_files(manifest.source)),
        tensors="\n".join(_list_tensors(manifest)),
    )


def _describe_license(source: SourceEntry) -> str:
    files = ", ".join(f"`{name}`" for name in source.license_files)
    text = f" Its text: {files}." if files else ""
    if source.license:
        return f"The weights keep the checkpoint's license: {_escape(source.license)}.{text}"
    return f"The weights keep the license of the checkpoint, whose card does not name it.{text}"


def _list_files(source: SourceEntry) -> Iterator[str]:
    for name, entry in sorted(source.files.items()):
        yield f"| {_escape(name)} | {entry.size_bytes:,} | `{entry.sha256}` |"


def _list_tensors(manifest: Manifest) -> Iterator[str]:
    for tensor in manifest.tensors:
        of = tensor.sources
        files = ", ".join(sorted({_escape(one.file) for one in of})) or _ROTATION_TABLE
        names = ", ".join(_escape(one.tensor) for one in of)
        yield f"| {tensor.name} | {tensor.scheme} | {files} | {names} |"


def _escape(text: str) -> str:
    """Names out of a checkpoint: no table is torn, no markup runs."""
    return "".join(f"&#{ord(c)};" if c in _MARKUP or not c.isprintable() else c for c in text)


def _describe_blocks(recipe: RecipeEntry) -> list[str]:
    if recipe.block_size is None:
        return ["block sizes by tensor"]
    symmetry = {True: "symmetric", False: "asymmetric", None: "symmetry by tensor"}
    return [f"block {recipe.block_size}", symmetry[recipe.is_symmetric]]
