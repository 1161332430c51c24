"""The `glm-export` command. It parses, prints and exits; `pipeline.py` does the work."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import click

import glm_export
from glm_export.checkpoint.rope_options import ROPE_NAMES, ROPE_SCALINGS, RopeOptions
from glm_export.command_line import (
    ExportCommand,
    adapter_option,
    find_adapters,
    read_adapters,
)
from glm_export.early_checks import check_export_output
from glm_export.output.unfinished import find_unfinished
from glm_export.plan.options import DTYPES, KV_CACHES, QUANTS, TARGETS, VERIFY_LEVELS, ExportOptions
from glm_export.plan.report import ExportReport
from glm_quantize import METHODS, SUPPORTED_BLOCK_SIZES
from glm_runtime.cli.failure import debug_option, run_program
from glm_runtime.cli.hub import FolderPath, check_push, find_checkpoint, push_folder
from glm_runtime.cli.hub_headers import find_planned
from glm_runtime.cli.progress import quiet_option, say, show_progress
from glm_runtime.cli.terminal import format_bytes
from glm_runtime.graph.machine import MAX_THREADS

_EXAMPLES = """\b
Examples:
  glm-export ./GLM-4-9B-0414 --quant int4 -o artifacts/glm4-int4
  glm-export ./GLM-Z1-9B-0414 --bits-per-weight 4.5 --calibration chats.jsonl -o artifacts/z1
  glm-export ./GLM-4-32B-0414 --quant int4 --method rtn --plan
"""
_PATH = click.Path(path_type=Path)
_UNNAMED = "glm-export-output"  # the output that --plan without -o assumes


@click.command(name="glm-export", cls=ExportCommand, epilog=_EXAMPLES)
@click.argument("checkpoint", type=FolderPath())
@click.option("-o", "--output", type=_PATH, help="Folder to create. Required, except with --plan.")
@click.option(
    "--quant",
    type=click.Choice(QUANTS),
    help="Type of the quantized weights. int4 without further options mixes int4 and int8 within "
    "the size of int4 with block size 32; int2 is experimental.  [default: int4; a checkpoint "
    "that is already quantized keeps its own codes]",
)
@click.option(
    "--bits-per-weight",
    type=float,
    help="Average number of bits per weight, scales and zero points included. int4 and int8 are "
    "mixed for the lowest KL divergence at this size.",
)
@click.option(
    "--method",
    type=click.Choice(tuple(METHODS)),
    help="Quantization method. rtn, rtn-search and hqq need no calibration and take little time.  "
    "[default: gptq-refine for int4 and int2, rtn-search for int8]",
)
@click.option(
    "--block-size",
    type=click.Choice([str(size) for size in SUPPORTED_BLOCK_SIZES]),
    help="Number of weights that share one scale. A matrix whose rows do not divide into such "
    "blocks gets the next smaller size.  [default: 32 for int4 and int2, 128 for int8; a mix "
    "chooses it for each matrix]",
)
@click.option(
    "--symmetric/--asymmetric",
    default=None,
    help="Quantize without or with zero points.  [default: with, except int2 by rtn]",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="PATTERN=SPEC",
    help="Use another scheme for some matrices, for example 'lm_head=int8', 'embed_tokens=none' or "
    "'layers.*.down_proj=int8-b64-sym'. May be repeated; the last match wins.",
)
@adapter_option
@click.option(
    "--calibration",
    type=_PATH,
    help="Calibration text similar to the model's later input: .txt, .jsonl with `text` or "
    "`messages`, or a folder of such files.  [default: an English and Chinese text in the package]",
)
@click.option(
    "--calibration-tokens",
    type=click.IntRange(1),
    default=8192,
    show_default=True,
    help="Number of calibration tokens.",
)
@click.option(
    "--device", default="cpu", show_default=True, help="PyTorch device that runs the calibration."
)
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="Type of activations, scales and unquantized weights.  [default: fp32 for cpu, fp16 for "
    "cuda]",
)
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default="cpu",
    show_default=True,
    help="Kind of processor that will run the folder.",
)
@click.option(
    "--rope-scaling",
    type=click.Choice(ROPE_SCALINGS),
    help="Extend the context by YaRN, for prompts longer than the training context. It applies to "
    "short prompts too and may cost a little quality there.  [default: as config.json says]",
)
@click.option("--factor", type=float, help="YaRN scaling factor, for example 4.")
@click.option(
    "--original-context",
    type=click.IntRange(1),
    help="Number of tokens of the training context, for YaRN.  [default: config.json's context]",
)
@click.option(
    "--rope-theta",
    type=float,
    help="Base of the rotary embedding.  [default: as config.json says]",
)
@click.option(
    "--kv-cache",
    type=click.Choice(KV_CACHES),
    default="float",
    show_default=True,
    help="Type of the KV cache. int8 takes a quarter of the memory of fp32 and makes decoding "
    "faster in long contexts, but prefill slower. Its scales come from the calibration text.",
)
@click.option(
    "--verify",
    type=click.Choice(VERIFY_LEVELS),
    default="auto",
    show_default=True,
    help="How the folder is verified. full compares the graph's logits with PyTorch's; tensors "
    "reads every tensor back; auto is full if memory allows it, else tensors.",
)
@click.option(
    "--accuracy-level",
    type=click.IntRange(0, 4),
    help="accuracy_level attribute of MatMulNBits: 0 computes in float32, 4 in int8.  [default: 4 "
    "for cpu, 0 for cuda]",
)
@click.option(
    "--conformance",
    "has_conformance",
    is_flag=True,
    help="Also run the folder and write conformance.json, which holds prompts, tokens, logits and "
    "answers to test hosts in other languages.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MAX_THREADS),
    help="Number of threads that genai_config.json sets for onnxruntime-genai.  [default: chosen "
    "by onnxruntime-genai]",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Continue an interrupted export that had the same options and checkpoint.",
)
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@click.option(
    "--plan",
    "is_plan",
    is_flag=True,
    help="Print the size, and estimates of memory and time, without exporting. Of a model of the "
    "hub it downloads the small files and the headers of the weights.",
)
@click.option(
    "--push",
    metavar="ORG/NAME",
    help="Upload the folder to the Hugging Face Hub afterwards. A new repository is private.",
)
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@quiet_option
@debug_option
@click.version_option(glm_export.__version__, prog_name="glm-export")
def command(
    checkpoint: Path,
    output: Path | None,
    is_plan: bool,
    push: str | None,
    is_json: bool,
    **choices: object,
) -> None:
    """Export a GLM-4 CHECKPOINT to a folder for ONNX Runtime.

    CHECKPOINT is a Hugging Face folder with config.json, *.safetensors or pytorch_model*.bin, and
    tokenizer.json or tokenizer.model, or a model of the Hugging Face Hub such as
    zai-org/GLM-4-9B-0414 or org/name@revision, which is downloaded. The output is written to a
    temporary folder, verified, and then renamed, so an incomplete output folder never exists.
    """
    if output is None and not is_plan:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    if push is not None:
        check_push(push)
    options = _read_options(checkpoint, output or Path(_UNNAMED), choices)
    if not is_plan:
        check_export_output(options)  # before a download
    options = replace(options, adapters=find_adapters(options.adapters))
    if is_plan:
        with find_planned(checkpoint) as folder:
            _plan(replace(options, checkpoint=folder), is_json=is_json)
        return
    _export(replace(options, checkpoint=find_checkpoint(checkpoint)), is_json=is_json)
    if push is not None:
        say(f"uploaded     {push_folder(options.output, push)}")


def _plan(options: ExportOptions, *, is_json: bool) -> None:
    with show_progress() as show:
        estimate = glm_export.estimate(options, show)
    if is_json:
        click.echo(json.dumps(asdict(estimate) | {"seconds": estimate.seconds}))
        return
    from glm_export.plan_text import render_estimate  # noqa: PLC0415 - needs the extra

    click.echo(render_estimate(estimate))


def _export(options: ExportOptions, *, is_json: bool) -> None:
    try:
        with show_progress() as show:
            report = glm_export.export(options, show)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(_describe_interruption(options.output)) from error
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
        is_symmetric=None if (symmetric := choices.pop("symmetric")) is None else bool(symmetric),
        is_forced=bool(choices.pop("force")),
        is_resumed=bool(choices.pop("resume")),
        adapters=read_adapters(choices.pop("adapters")),  # type: ignore[arg-type]
        rope=RopeOptions(*(choices.pop(name) for name in ROPE_NAMES)),  # type: ignore[arg-type]
        **choices,  # type: ignore[arg-type]  # click has made them what the options say
    )


def _describe_interruption(output: Path) -> str:
    kept = find_unfinished(output)
    if not kept.exists():
        return "nothing was changed"
    return f"the finished work is kept in {kept}, and the same command continues from there"


def _print_summary(report: ExportReport) -> None:
    """Print the result for people on stderr, unless the user gave --quiet."""
    level = report.verification["level"]
    error = report.verification.get("logit_error")
    checked = f"{level}" if error is None else f"{level}, logits within {error:.2g} of PyTorch's"
    bits = f"{report.bits_per_weight:.2f} bits a weight"
    source = f"the checkpoint's weights have {format_bytes(report.source_bytes)}"
    lines = [
        f"size         {format_bytes(report.size_bytes)}, {bits}; {source}",
        f"rounding     {report.weight_error:.2%} of the weights' norm",
        f"verified     {checked}",
        f"took         {report.seconds:.1f} s, peak memory {format_bytes(report.peak_rss_bytes)}",
        f"next         glm-run chat {report.folder}",
    ]
    if report.resumed_tensors:
        lines.append(f"resumed      {report.resumed_tensors} tensors had been written before")
    lines += [f"note         {note}" for note in report.notes]
    lines += [f"not calibrated  {name}: {why}" for name, why in report.fallbacks.items()]
    for line in lines:
        say(line)


def main() -> None:
    """Entry point."""
    run_program(command, "glm-export")
