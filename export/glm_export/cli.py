"""The `glm-export` command: parses, prints, exits; all work is `pipeline.py`'s."""

import json
from dataclasses import asdict
from pathlib import Path

import click

import glm_export
from glm_export.checkpoint.rope_options import ROPE_NAMES, ROPE_SCALINGS, RopeOptions
from glm_export.command_line import run_command, show_progress
from glm_export.plan.options import DTYPES, KV_CACHES, QUANTS, TARGETS, VERIFY_LEVELS, ExportOptions
from glm_export.plan.report import ExportReport
from glm_quantize import METHODS, SUPPORTED_BLOCK_SIZES

_EXAMPLES = """\b
Examples:
  glm-export ./GLM-4-9B-0414 --quant int4 -o artifacts/glm4-int4
  glm-export ./GLM-Z1-9B-0414 --bits-per-weight 4.5 --calibration chats.jsonl -o artifacts/z1
  glm-export ./GLM-4-32B-0414 --quant int4 --method rtn --plan
"""
_PATH = click.Path(path_type=Path)
_UNNAMED = "glm-export-output"  # for --plan without -o: a folder here


@click.command(name="glm-export", epilog=_EXAMPLES)
@click.argument("checkpoint", type=_PATH)
@click.option("-o", "--output", type=_PATH, help="Folder to make; only --plan can do without.")
@click.option(
    "--quant",
    type=click.Choice(QUANTS),
    help="int4 alone mixes int4 and int8 within the bytes of int4 block 32; int2 is experimental.  "
    "[default: int4; as it is, if the checkpoint is quantized already]",
)
@click.option(
    "--bits-per-weight",
    type=float,
    help="Mix int4 and int8 within this average, scales included: the least KL that it allows.",
)
@click.option(
    "--method",
    type=click.Choice(tuple(METHODS)),
    help="How codes are chosen. rtn, rtn-search and hqq need no texts and little time.  "
    "[default: gptq-refine, for int8 rtn-search]",
)
@click.option(
    "--block-size",
    type=click.Choice([str(size) for size in SUPPORTED_BLOCK_SIZES]),
    help="Weights that share a scale, the same everywhere.  [default: chosen; 128 for int8]",
)
@click.option("--symmetric/--asymmetric", default=False, help="Without or with zero points.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATTERN=SPEC",
    help="Another scheme for some matrices, such as 'lm_head=int8', 'embed_tokens=none' or "
    "'layers.*.down_proj=int8-b64-sym'. May be repeated; the last one wins.",
)
@click.option(
    "--calibration",
    type=_PATH,
    help="Texts like those the model will see: .txt, .jsonl with `text` or `messages`, or a folder "
    "of such files.  [default: English and Chinese, shipped]",
)
@click.option(
    "--calibration-tokens", type=click.IntRange(1), default=8192, show_default=True, help="Of it."
)
@click.option("--device", default="cpu", show_default=True, help="Where calibration computes.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="Of activations, scales and unquantized weights.  [default: fp32 for cpu, fp16 for cuda]",
)
@click.option("--target", type=click.Choice(TARGETS), default="cpu", show_default=True)
@click.option(
    "--rope-scaling",
    type=click.Choice(ROPE_SCALINGS),
    help="Stretch the context as YaRN does, for prompts beyond what the model was trained for. It "
    "applies to short texts, too, and may cost a little there.  [default: as config.json says]",
)
@click.option("--factor", type=float, help="Of YaRN, such as 4.")
@click.option(
    "--original-context",
    type=click.IntRange(1),
    help="Of YaRN: tokens the model was trained for.  [default: config.json's context]",
)
@click.option("--rope-theta", type=float, help="Base of the rotary embedding, for config.json's.")
@click.option(
    "--kv-cache",
    type=click.Choice(KV_CACHES),
    default="float",
    show_default=True,
    help="int8: a quarter of the memory for long contexts and faster decoding there; prompts are "
    "read more slowly. Its scales come from the calibration text.",
)
@click.option(
    "--verify",
    type=click.Choice(VERIFY_LEVELS),
    default="auto",
    show_default=True,
    help="full: run the graph against PyTorch; tensors: read every tensor back; "
    "auto: full where memory allows, else tensors.",
)
@click.option(
    "--accuracy-level",
    type=click.IntRange(0, 4),
    help="Of MatMulNBits: 0 computes in float32, 4 in int8.  [default: 4 for cpu, 0 for cuda]",
)
@click.option(
    "--conformance",
    "has_conformance",
    is_flag=True,
    help="Also run the folder and write conformance.json: prompts, tokens, logits and answers that "
    "hosts in other languages are held to.",
)
@click.option("--threads", type=click.IntRange(1), help="Written for onnxruntime-genai.")
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on at the tensor where a run was killed, if options and checkpoint are the same.",
)
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@click.option(
    "--plan",
    "is_plan",
    is_flag=True,
    help="Say what would be made, and about what memory and time it would take; make nothing.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show an error's traceback.")
@click.version_option(glm_export.__version__, prog_name="glm-export")
def command(
    checkpoint: Path, output: Path | None, is_plan: bool, is_json: bool, **choices: object
) -> None:
    """Make a folder for ONNX Runtime from a GLM-4 CHECKPOINT.

    CHECKPOINT is a Hugging Face folder: config.json, *.safetensors or pytorch_model*.bin, and
    tokenizer.json or tokenizer.model. The folder is written beside its final place, verified, then
    renamed: it is never half there.
    """
    if is_plan:
        _plan(_read_options(checkpoint, output or Path(_UNNAMED), choices), is_json=is_json)
        return
    if output is None:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    _export(_read_options(checkpoint, output, choices), is_json=is_json)


def _plan(options: ExportOptions, *, is_json: bool) -> None:
    from glm_export.plan_text import render_estimate  # noqa: PLC0415 - needs the extra

    with show_progress() as show:
        estimate = glm_export.estimate(options, show)
    if is_json:
        click.echo(json.dumps(asdict(estimate) | {"seconds": estimate.seconds}))
        return
    click.echo(render_estimate(estimate))


def _export(options: ExportOptions, *, is_json: bool) -> None:
    try:
        with show_progress() as show:
            report = glm_export.export(options, show)
    except KeyboardInterrupt:
        _say_what_is_kept(options.output)
        raise
    if is_json:
        click.echo(json.dumps(asdict(report) | {"folder": str(report.folder)}))
        return
    _print_summary(report)
    click.echo(report.folder)


def _read_options(checkpoint: Path, output: Path, choices: dict[str, object]) -> ExportOptions:
    block_size = choices.pop("block_size")
    return ExportOptions(
        checkpoint=checkpoint,
        output=output,
        block_size=None if block_size is None else int(str(block_size)),
        is_symmetric=bool(choices.pop("symmetric")),
        is_forced=bool(choices.pop("force")),
        is_resumed=bool(choices.pop("resume")),
        rope=RopeOptions(*(choices.pop(name) for name in ROPE_NAMES)),  # type: ignore[arg-type]
        **choices,  # type: ignore[arg-type]  # click has made them what the options say
    )


def _say_what_is_kept(output: Path) -> None:
    from glm_export.output.unfinished import find_unfinished  # noqa: PLC0415 - needs the extra

    kept = find_unfinished(output)
    if kept.exists():
        click.echo(
            f"What is finished is kept in {kept}; the same command goes on from there.", err=True
        )


def _print_summary(report: ExportReport) -> None:
    """The result for people, on stderr; stdout is for the folder's name."""
    level = report.verification["level"]
    error = report.verification.get("logit_error")
    checked = f"{level}" if error is None else f"{level}, logits within {error:.2g} of PyTorch's"
    bits = f"{report.bits_per_weight:.2f} bits a weight"
    lines = [
        f"size         {report.size_bytes / 1e6:,.1f} MB, {bits}",
        f"rounding     {report.weight_error:.2%} of the weights' norm",
        f"verified     {checked}",
        f"took         {report.seconds:.1f} s, peak memory {report.peak_rss_bytes / 1e6:,.0f} MB",
        f"next         glm-run chat {report.folder}",
    ]
    if report.resumed_tensors:
        lines.append(f"resumed      {report.resumed_tensors} tensors had been written before")
    lines += [f"note         {note}" for note in report.notes]
    lines += [f"not calibrated  {name}: {why}" for name, why in report.fallbacks.items()]
    for line in lines:
        click.echo(line, err=True)


def main() -> None:
    """Entry point."""
    run_command(command)
