"""Quality at equal size: our recipes, ONNX Runtime's own quantizer, llama.cpp's file types.

All start from one checkpoint and are judged on the held-out text against the float32 original, by
the same code on logits. Bits per weight count everything stored over all parameters of the
checkpoint. Read `variants.py` for the rows and `report.py` for the bounds.
"""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import click

from benchmarks.command import Figures, benchmark, say, split_names, work_option
from benchmarks.exports import SAMPLE
from benchmarks.peers.environments import read_versions
from benchmarks.quality.families import FAMILIES, Setting
from benchmarks.quality.judge import (
    EVALUATION_TEXT,
    WINDOW,
    Result,
    hash_files,
    measure,
    read_text,
    run_original,
)
from benchmarks.quality.report import (
    check_bounds,
    draw,
    render_bounds,
    render_checks,
    render_table,
    sort_by_bits,
)
from glm_export.errors import ExportError
from glm_export.evaluation import comparison
from glm_export.graph import logits_session
from glm_export.model import decoder, layer_stream, operators

# A peer's unquantized file that differs more than this is another model.
_MOST_CHECK_DIVERGENCE = 1e-4
# What a result depends on, besides the text and the variant itself.
_JUDGES = (comparison, decoder, logits_session, operators, layer_stream)


class CheckError(Exception):
    """A peer's unquantized file does not compute the same as the original."""


def run(setting: Setting, families: Sequence[str], match: str) -> list[Result]:
    """Make and judge the variants of the families whose names contain `match`, and all checks.

    Raises:
        CheckError: a peer starts from another model, so its figures would mean nothing.
    """
    judge = {
        "windows": [len(setting.original.windows), WINDOW],
        "code": hash_files(Path(str(module.__file__)) for module in _JUDGES),
        "text": hash_files([EVALUATION_TEXT]),
        "torch": metadata.version("torch"),
    }
    results = []
    for family in families:
        for candidate in FAMILIES[family](setting):
            if match not in candidate.name and not candidate.is_check:
                continue
            say(f"{candidate.family}: {candidate.name}")
            result = measure(candidate, setting.original, setting.work, judge)
            if result.is_check and result.comparison.kl_mean > _MOST_CHECK_DIVERGENCE:
                raise CheckError(
                    f"{result.family} {result.name} has KL {result.comparison.kl_mean:.2e} from "
                    f"the original; at most {_MOST_CHECK_DIVERGENCE:.0e} is expected, "
                    "so the conversion is wrong."
                )
            results.append(result)
    return results


def _report(results: Sequence[Result]) -> dict[str, object]:
    checks = [result for result in results if result.is_check]
    rows = [result for result in results if not result.is_check]
    bounds = check_bounds(rows)
    reference_perplexity = results[0].comparison.reference_perplexity
    print(f"original: {results[0].comparison.tokens} tokens, perplexity {reference_perplexity:.3f}")
    print(f"{render_checks(checks)}\n\n{render_table(rows)}\n\n{render_bounds(bounds)}")
    return {
        "checks": [_as_json(check) for check in checks],
        "rows": [_as_json(row) for row in sort_by_bits(rows)],
        "bounds": [asdict(bound) for bound in bounds],
    }


def _as_json(result: Result) -> dict[str, object]:
    found = asdict(result)
    compared = found.pop("comparison")
    del found["is_check"]
    return found | {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in compared.items()
    }


@benchmark(
    "onnxruntime",
    "torch",
    "onnx",
    "numpy",
    examples="""\
python -m benchmarks.quality --work work
python -m benchmarks.quality --only ours --match gptq --max-tokens 20000
python -m benchmarks.quality --only ours,ort --plot quality.svg""",
    failures=(CheckError, ExportError),
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=SAMPLE,
    help="Checkpoint to quantize. Default: the sample.",
)
@click.option(
    "--max-tokens", default=100_000, show_default=True, help="Maximum number of evaluation tokens."
)
@click.option(
    "--only",
    "families",
    callback=split_names,
    default=",".join(FAMILIES),
    show_default=True,
    help="Families to compare, with commas between.",
)
@click.option("--match", default="", help="Compare only variants whose name contains this text.")
@click.option("--plot", type=click.Path(path_type=Path), help="SVG file to draw the plot to.")
@work_option
def quality(
    checkpoint: Path,
    max_tokens: int,
    families: list[str],
    match: str,
    plot: Path | None,
    work: Path,
) -> Figures:
    """Compare KL divergence and bits per weight of our recipes and the peers' quantizers."""
    unknown = sorted(set(families) - set(FAMILIES))
    if unknown:
        raise click.UsageError(f"--only: {unknown[0]!r} is none of {', '.join(FAMILIES)}.")
    say("running the original")
    original = run_original(checkpoint, read_text(checkpoint, max_tokens))
    results = run(Setting(checkpoint, original, work), families, match)
    if not results:
        raise click.UsageError(f"--match: no variant's name contains {match!r}.")
    figures = _report(results)
    if plot is not None:
        draw([result for result in results if not result.is_check], plot)
    return figures | ({"llama_cpp": read_versions("llama-cpp")} if "llama" in families else {})


if __name__ == "__main__":
    quality(prog_name="python -m benchmarks.quality")
