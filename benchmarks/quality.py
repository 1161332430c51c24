"""Quality at equal size: our recipes, ONNX Runtime's own quantizer, llama.cpp's file types.

    python benchmarks/quality.py [--work DIR] [--only ours,ort,llama] [--plot FILE.svg]

All start from the sample checkpoint and are judged on its held-out text against the float32
original, by the same code on logits. Bits per weight count everything stored over all parameters of
the checkpoint. Read `quality_variants.py` for the rows and `quality_bounds.py` for the bounds.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from measurement import ChildError, describe_machine, show_machine
from quality_bounds import check_bounds, sort_by_bits
from quality_candidate import Result, hash_files, measure
from quality_llama import build_llama, read_versions
from quality_original import WINDOW, read_text, run_original
from quality_ort import build_ort
from quality_ours import build_ours
from quality_report import draw, render_bounds, render_checks, render_table
from quality_setting import Setting

from glm_export.calibration import reference
from glm_export.errors import ExportError
from glm_export.evaluation import comparison
from glm_export.graph import logits_session
from glm_export.model import decoder, operators
from glm_runtime.errors import FolderError

_ROOT = Path(__file__).parents[1]
_BUILDERS = {"ours": build_ours, "ort": build_ort, "llama": build_llama}
_PACKAGES = ("onnxruntime", "torch", "onnx", "numpy")
# A peer's unquantized file that differs more than this is another model.
_MOST_CHECK_DIVERGENCE = 1e-4
# What a result depends on, besides the text and the variant itself.
_JUDGES = (comparison, decoder, logits_session, operators, reference)


class CheckError(Exception):
    """A peer's unquantized file does not compute what the original does."""


def run(checkpoint: Path, work: Path, families: Sequence[str], max_tokens: int) -> list[Result]:
    """Make and judge all variants of these families.

    Raises:
        CheckError: a peer starts from another model, so its figures would mean nothing.
    """
    _say("running the original")
    original = run_original(checkpoint, read_text(checkpoint, max_tokens))
    judge = {
        "windows": [len(original.windows), WINDOW, max_tokens],
        "code": hash_files(Path(str(module.__file__)) for module in _JUDGES),
        "text": hash_files([Path(comparison.__file__).parent / "data/evaluation.txt"]),
        "torch": metadata.version("torch"),
    }
    results = []
    setting = Setting(checkpoint, original, work)
    for family in families:
        for candidate in _BUILDERS[family](setting):
            _say(f"{candidate.family}: {candidate.name}")
            result = measure(candidate, original, work, judge)
            if result.is_check and result.comparison.kl_mean > _MOST_CHECK_DIVERGENCE:
                raise CheckError(
                    f"{result.family} {result.name} has KL {result.comparison.kl_mean:.2e} from "
                    f"the original; at most {_MOST_CHECK_DIVERGENCE:.0e} is expected, "
                    "so the conversion is wrong."
                )
            results.append(result)
    return results


def _report(results: Sequence[Result], plot: Path | None) -> tuple[str, dict[str, object]]:
    checks = [result for result in results if result.is_check]
    rows = [result for result in results if not result.is_check]
    bounds = check_bounds(rows)
    reference_perplexity = results[0].comparison.reference_perplexity
    text = (
        f"original: {results[0].comparison.tokens} tokens, perplexity {reference_perplexity:.3f}\n"
        f"{render_checks(checks)}\n\n{render_table(rows)}\n\n{render_bounds(bounds)}"
    )
    if plot is not None:
        draw(rows, plot)
    figures: dict[str, object] = {
        "checks": [_as_json(check) for check in checks],
        "rows": [_as_json(row) for row in sort_by_bits(rows)],
        "bounds": [asdict(bound) for bound in bounds],
    }
    return text, figures


def _as_json(result: Result) -> dict[str, object]:
    found = asdict(result)
    compared = found.pop("comparison")
    del found["is_check"]
    return found | {
        key: float(f"{value:.6g}") if isinstance(value, float) else value
        for key, value in compared.items()
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse_families(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in _BUILDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(_BUILDERS)}")
    return names


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=_ROOT / "artifacts/glm4-sample")
    parser.add_argument("--work", type=Path, help="keeps what is made, and uses it again")
    parser.add_argument("--max-tokens", type=int, default=100_000, help="of the held-out text")
    parser.add_argument("--only", type=_parse_families, default=list(_BUILDERS))
    parser.add_argument("--plot", type=Path, help="SVG to draw")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    return parser.parse_args()


def main() -> None:
    """Entry point."""
    arguments = _parse_arguments()
    machine = describe_machine(_PACKAGES)
    if "llama" in arguments.only:
        machine["llama.cpp"] = read_versions()
    if not arguments.json:
        show_machine(machine)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        try:
            results = run(arguments.checkpoint, work, arguments.only, arguments.max_tokens)
        except (ChildError, CheckError, ExportError, FolderError, OSError) as error:
            sys.exit(f"quality.py: {error}")
    text, figures = _report(results, arguments.plot)
    if not arguments.json:
        print(text)
    print(json.dumps({"benchmark": "quality", **figures, "machine": machine}))


if __name__ == "__main__":
    main()
