"""The `glm-export` command: parses, prints, exits; all work is `pipeline.py`'s."""

import json
from dataclasses import asdict
from pathlib import Path

import click

import glm_export
from glm_export.command_line import run_command, show_progress
from glm_export.options import DTYPES, QUANTS, TARGETS, VERIFY_LEVELS, ExportOptions
from glm_export.report import ExportReport
from glm_quantize import METHODS

_EXAMPLES = """\b
Examples:
  glm-export ./GLM-4-9B-0414 --quant int4 -o artifacts/glm4-int4
  glm-export ./GLM-Z1-9B-0414 --quant int8 --block-size 64 -o artifacts/z1-int8
  glm-export ./glm-edge-1.5b-chat --quant none --dtype fp16 -o artifacts/edge-fp16 --json
"""
_PATH = click.Path(path_type=Path)


@click.command(name="glm-export", epilog=_EXAMPLES)
@click.argument("checkpoint", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, help="Folder to make.")
@click.option("--quant", type=click.Choice(QUANTS), default="int4", show_default=True)
@click.option("--method", type=click.Choice(sorted(METHODS)), default="rtn", show_default=True)
@click.option(
    "--block-size",
    type=click.Choice(["32", "64", "128"]),
    help="Weights that share a scale.  [default: 32 for int4, 128 for int8]",
)
@click.option("--symmetric/--asymmetric", default=False, help="Without or with zero points.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    help="Of activations, scales and unquantized weights.  [default: fp32 for cpu, fp16 for cuda]",
)
@click.option("--target", type=click.Choice(TARGETS), default="cpu", show_default=True)
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
@click.option("--threads", type=click.IntRange(1), help="Written for onnxruntime-genai.")
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show an error's traceback.")
@click.version_option(glm_export.__version__, prog_name="glm-export")
def command(
    checkpoint: Path, output: Path, is_json: bool, **choices: str | int | bool | None
) -> None:
    """Make a folder for ONNX Runtime from a GLM-4 CHECKPOINT.

    CHECKPOINT is a Hugging Face folder: config.json, *.safetensors, tokenizer.json. The folder is
    written beside its final place, verified, then renamed: it is never half there.
    """
    options = _read_options(checkpoint, output, choices)
    with show_progress() as show:
        report = glm_export.export(options, show)
    if is_json:
        click.echo(json.dumps(asdict(report) | {"folder": str(report.folder)}))
        return
    _print_summary(report)
    click.echo(report.folder)


def _read_options(
    checkpoint: Path, output: Path, choices: dict[str, str | int | bool | None]
) -> ExportOptions:
    block_size, level = choices["block_size"], choices["accuracy_level"]
    threads, dtype = choices["threads"], choices["dtype"]
    return ExportOptions(
        checkpoint=checkpoint,
        output=output,
        quant=str(choices["quant"]),
        method=str(choices["method"]),
        block_size=None if block_size is None else int(block_size),
        is_symmetric=bool(choices["symmetric"]),
        dtype=None if dtype is None else str(dtype),
        target=str(choices["target"]),
        verify=str(choices["verify"]),
        is_forced=bool(choices["force"]),
        accuracy_level=None if level is None else int(level),
        threads=None if threads is None else int(threads),
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
    for line in lines:
        click.echo(line, err=True)


def main() -> None:
    """Entry point."""
    run_command(command)
