"""The model card README.md: the folder's source, its quantization, and how to run it."""

import re
from collections.abc import Iterator
from pathlib import Path

from glm_runtime.folder.manifest import (
    Manifest,
    RecipeEntry,
    SourceEntry,
    VerificationEntry,
)

_TEMPLATE = """\
---
{head}
---

# {name} for ONNX Runtime

glm-export {tool_version} made this folder from the `{model_type}` checkpoint `{name}`.{adapters}

| | |
|---|---|
| recipe | {recipe} |
| parameters | {parameters:,} |
| bits per weight, scales included | {bits_per_weight:.2f} |
| size of the weights | {size_mb:,.1f} MB |
| context | {context_length:,} tokens |

{verification}

`glm-eval CHECKPOINT THIS_FOLDER` compares this folder with the original by perplexity and KL
divergence.

## Run it

The programs are in a clone or a release of <{home}>. Replace `THIS_FOLDER` by this folder's path.

**Python**, after `pip install '.[onnxruntime]'` in a clone:

```python
import glm_runtime

model = glm_runtime.load("THIS_FOLDER")
for piece in model.chat([{{"role": "user", "content": "Hello"}}]):
    print(piece.text, end="", flush=True)
```

`glm-run chat THIS_FOLDER` chats in a terminal; `glm-run doctor THIS_FOLDER` checks every file.

**Node**, after `npm install` of the package that `npm pack ./runtime/node` makes in a clone:

```js
import {{ load }} from "glm-runtime";

const model = await load("THIS_FOLDER");
for await (const piece of model.chat([{{ role: "user", content: "Hello" }}])) {{
  process.stdout.write(piece.text);
}}
```

**C**, with the library that `runtime/cpp` of a clone builds:

```c
#include <glm.h>
#include <stdio.h>

static int print_piece(void* user, const glm_piece* piece) {{
  (void)user;
  return fwrite(piece->text, 1, piece->length, stdout) != piece->length;
}}

int main(void) {{
  const glm_message message = {{"user", "Hello"}};
  static char prompt[4096];
  static int32_t tokens[4096];
  size_t length, count;
  glm_model* model;
  glm_session* session;
  if (glm_load("THIS_FOLDER", NULL, &model) || glm_new_session(model, &session) ||
      glm_render_chat(model, &message, 1, -1, prompt, sizeof prompt, &length) ||
      glm_tokenize(model, prompt, length, tokens, 4096, &count) ||
      glm_generate(session, tokens, count, NULL, print_piece, NULL)) {{
    fprintf(stderr, "%s\\n", glm_error_text());
    return 1;
  }}
  return 0;
}}
```

**Other programs**: onnxruntime-genai loads this folder without changes. Set `intra_op_num_threads`
under `session_options` in `genai_config.json` to your number of cores. Without this setting,
onnxruntime-genai ran at half its speed on a machine with two cores.

The graph's inputs are `input_ids`, `attention_mask` and `past_key_values.{{i}}.key|value`. Its
outputs are `logits` and `present.{{i}}.key|value`. By default the graph returns the logits of each
row's last position that is not padding. The optional input `num_logits_to_keep` ([1] int64) sets
the number of positions.

## Where it comes from

{license}

| file of the checkpoint | bytes | SHA-256 |
|---|---|---|
{sources}

<details><summary>The source of every tensor</summary>

| tensor | stored as | file of the checkpoint | tensor in that file |
|---|---|---|---|
{tensors}

</details>
"""
_HOME = "https://github.com/glm-export/glm-export"
# The hub's names of common licenses; another license is written as "other" with its name.
_HUB_LICENSES = (
    *("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0"),
    *("cc0-1.0", "gpl-3.0", "lgpl-3.0", "mit", "mpl-2.0", "openrail", "unlicense"),
)
# Where the hub's client keeps the checkpoint ORGANIZATION/NAME at a revision.
_HUB_CACHE = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_MARKUP = "|<>`*[]\\&"
_ROTATION_TABLE = "computed from config.json"


def name_base_model(checkpoint: Path) -> str:
    """Return the Hugging Face name of a checkpoint in a cache folder, else its folder's name."""
    cached = _HUB_CACHE.fullmatch(checkpoint.parent.parent.name)
    if cached is not None and checkpoint.parent.name == "snapshots":
        return "/".join(cached.groups())
    return checkpoint.name


def render_card(manifest: Manifest, data_bytes: int, base_model: str) -> str:
    """Render the card as Markdown.

    Args:
        manifest: manifest of the folder, without the entry of the card.
        data_bytes: size of the data file.
        base_model: result of `name_base_model`.
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
    return _TEMPLATE.format(
        head="\n".join(_list_head(manifest, base_model)),
        home=_HOME,
        name=_escape(manifest.source.name),
        tool_version=manifest.tool_version,
        model_type=manifest.source.model_type,
        adapters=_describe_adapters(manifest.source),
        recipe=", ".join(words),
        parameters=manifest.parameters,
        bits_per_weight=manifest.bits_per_weight,
        size_mb=data_bytes / 1e6,
        context_length=manifest.model.context_length,
        verification=_describe_verification(manifest.verification),
        license=_describe_license(manifest.source),
        sources="\n".join(_list_files(manifest.source)),
        tensors="\n".join(_list_tensors(manifest)),
    )


def _list_head(manifest: Manifest, base_model: str) -> Iterator[str]:
    """Yield the metadata for Hugging Face as lines of YAML.

    Source: Hugging Face's model card metadata.
    """
    name = manifest.source.license
    if name.lower() in _HUB_LICENSES:
        yield f"license: {name.lower()}"
    elif name:
        yield "license: other"
        yield f"license_name: {_quote(name)}"
    if _HUB_NAME.fullmatch(base_model):
        yield f"base_model: {_quote(base_model)}"
    yield "library_name: onnxruntime"
    yield "pipeline_tag: text-generation"
    yield "tags:"
    for tag in ("onnx", "onnxruntime", manifest.source.model_type, manifest.recipe.quant):
        if tag != "none":
            yield f"- {_quote(tag)}"


def _quote(text: str) -> str:
    """Quote a text from a checkpoint as a YAML string that holds no markup."""
    plain = (c if c.isprintable() and c not in '"\\<>&' else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(plain)}"'


def _describe_verification(verification: VerificationEntry) -> str:
    figures = verification.metrics
    if verification.level == "full":
        return (
            f"After the export, the graph was run on {figures['tokens']:.0f} tokens. The logits "
            f"differ by {figures['logit_error']:.2%} from those that PyTorch computes with the "
            f"same weights; at most {figures['logit_tolerance']:.2%} is allowed."
        )
    if verification.level == "tensors":
        return "After the export, every tensor was read back; the graph was not run."
    return "This folder was not verified after the export."


def _describe_license(source: SourceEntry) -> str:
    files = ", ".join(f"`{name}`" for name in source.license_files)
    text = f" The license text is in {files}." if files else ""
    if source.license:
        return f"The weights keep the checkpoint's license: {_escape(source.license)}.{text}"
    return f"The weights keep the checkpoint's license, which its model card does not name.{text}"


def _describe_adapters(source: SourceEntry) -> str:
    """Name the adapters, whose files are in the table of the checkpoint's files."""
    names = [f"`{_escape(one.name)}` (weight {one.weight:g})" for one in source.adapters]
    if not names:
        return ""
    subject = "This LoRA adapter was" if len(names) == 1 else "These LoRA adapters were"
    return f" {subject} merged into the weights first: {', '.join(names)}."


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
    """Escape a name from a checkpoint, so that it cannot break a table or add markup."""
    return "".join(f"&#{ord(c)};" if c in _MARKUP or not c.isprintable() else c for c in text)


def _describe_blocks(recipe: RecipeEntry) -> list[str]:
    if recipe.block_size is None:
        return ["block sizes by tensor"]
    symmetry = {True: "symmetric", False: "asymmetric", None: "symmetry by tensor"}
    return [f"block {recipe.block_size}", symmetry[recipe.is_symmetric]]
