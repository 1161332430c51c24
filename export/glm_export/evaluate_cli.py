"""The `glm-eval` command: what a folder lost against its original, as a table or as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

import click

import glm_export
from glm_export.command_line import run_command, show_progress
from glm_export.packages import require_export_packages

_EXAMPLES = """\b
Examples:
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4
  glm-eval ./GLM-4-9B-0414 artifacts/glm4-int4 --text my-domain.txt --max-tokens 20000
  glm-eval artifacts/glm4-sample artifacts/sample-int4 --json
"""
_PATH = click.Path(path_type=Path)


@click.command(name="glm-eval", epilog=_EXAMPLES)
@click.argument("checkpoint", type=_PATH)
@click.argument("folder", type=_PATH)
@click.option("--text", type=_PATH, help="UTF-8 file.  [default: English and Chinese, shipped]")
@click.option("--window", default=512, show_default=True, help="Tokens per window.")
@click.option("--max-tokens", default=16384, show_default=True, help="Windows are spread evenly.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show an error's traceback.")
@click.version_option(glm_export.__version__, prog_name="glm-eval")
def command(
    checkpoint: Path,
    folder: Path,
    text: Path | None,
    window: int,
    max_tokens: int,
    is_json: bool,
) -> None:
    """Compare a FOLDER with the CHECKPOINT it was made from.

    Both read the same text, in windows that start at position 0. KL is KL(original || folder) of
    the next-token distributions, in nats; top-1 is how often both prefer the same token.
    """
    require_export_packages()
    from glm_export.evaluate import EvaluationOptions, evaluate  # noqa: PLC0415 - torch is an extra

    options = EvaluationOptions(checkpoint, folder, text, window, max_tokens)
    with show_progress() as show:
        report = evaluate(options, show)
    figures = asdict(report.comparison) | {
        "bits_per_weight": report.manifest.bits_per_weight,
        "size_bytes": report.manifest.size_bytes,
    }
    click.echo(json.dumps(figures) if is_json else _format_table(figures))


def _format_table(figures: dict[str, float]) -> str:
    change = figures["perplexity"] / figures["reference_perplexity"] - 1
    rows = [
        ("perplexity, original", f"{figures['reference_perplexity']:.3f}"),
        ("perplexity, folder", f"{figures['perplexity']:.3f}  ({change:+.2%})"),
        ("KL divergence, mean", f"{figures['kl_mean']:.5f} nats"),
        ("KL divergence, 99th percentile", f"{figures['kl_p99']:.5f} nats"),
        ("top-1 agreement", f"{figures['top1_agreement']:.2%}"),
        ("bits per weight", f"{figures['bits_per_weight']:.2f}"),
        ("size", f"{figures['size_bytes'] / 1e6:,.1f} MB"),
        ("tokens compared", f"{figures['tokens']:,}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main() -> None:
    """Entry point."""
    run_command(command)
