"""The scheme of each matrix: that of the options, or that of `--set`.

With mixed precision `calibration/budget.py` chooses the schemes. Both return the same mapping,
which `plan.py` uses.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from glm_export.errors import OptionsError
from glm_export.model.architectures import ParameterSource
from glm_quantize import SUPPORTED_BLOCK_SIZES, Scheme, SchemeError

Schemes = dict[str, Scheme | None]
_SPEC = re.compile(r"(none)|int(\d+)(?:-b(\d+))?(?:-(sym|asym))?")
_WEIGHT = ".weight"
_HEAD, _EMBEDDING = "lm_head", "embed_tokens"


@dataclass(frozen=True)
class SchemeDefaults:
    """Defaults for a specification without block size or symmetry, for example `int8`.

    Attributes:
        block_sizes: block size by number of bits.
        symmetric_bits: numbers of bits whose schemes have no zero points.
    """

    block_sizes: Mapping[int, int]
    symmetric_bits: Collection[int]


@dataclass(frozen=True)
class Override:
    """A `--set PATTERN=SPEC`: matching matrices get this scheme, or stay float if it is None."""

    pattern: str
    scheme: Scheme | None


def parse_override(text: str, defaults: SchemeDefaults) -> Override:
    """Read `lm_head=int8`, `layers.*.down_proj=int4-b64-sym` or `embed_tokens=none`.

    Raises:
        OptionsError: the text has another form, or no kernel supports the scheme.
    """
    pattern, separator, spec = text.partition("=")
    found = _SPEC.fullmatch(spec.strip())
    if not separator or not pattern.strip() or found is None:
        raise OptionsError(
            f"--set {text!r} is not understood; write PATTERN=SPEC, for example "
            "'lm_head=int8', 'layers.*.down_proj=int4-b64-sym' or 'embed_tokens=none'."
        )
    if found[1]:
        return Override(pattern.strip(), None)
    bits = int(found[2])
    block_size = int(found[3]) if found[3] else defaults.block_sizes.get(bits, 128)
    is_symmetric = found[4] == "sym" if found[4] else bits in defaults.symmetric_bits
    try:
        return Override(pattern.strip(), Scheme(bits, block_size, is_symmetric))
    except SchemeError as error:
        raise OptionsError(f"--set {text!r}: {error}") from error


def list_matrices(parameters: Mapping[str, ParameterSource]) -> dict[str, tuple[int, int]]:
    """Return the names and shapes [N, C] of all parameters that can be quantized."""
    return {
        name: (source.shape[0], source.shape[1])
        for name, source in parameters.items()
        if len(source.shape) == 2
    }


def apply_overrides(
    matrices: Iterable[str], scheme: Scheme | None, overrides: Iterable[Override]
) -> tuple[Schemes, set[str]]:
    """Return the scheme of every matrix; the last override that matches a matrix wins.

    Args:
        matrices: names of parameters.
        scheme: scheme of a matrix that no override matches.
        overrides: overrides, matched with and without `.weight`. With tied embeddings `lm_head`
            matches the embedding.

    Returns:
        Schemes by name, and the names that an override matches.

    Raises:
        OptionsError: a pattern matches nothing.
    """
    names = list(matrices)
    schemes: Schemes = dict.fromkeys(names, scheme)
    fixed: set[str] = set()
    for override in overrides:
        matching = [name for name in names if _is_match(name, override.pattern, names)]
        if not matching:
            raise OptionsError(
                f"--set {override.pattern!r} matches no matrix; choose among "
                f"{', '.join(_summarize(names))} (* stands for anything)."
            )
        schemes |= dict.fromkeys(matching, override.scheme)
        fixed |= set(matching)
    return schemes, fixed


def fit_block_sizes(
    schemes: Mapping[str, Scheme | None], shapes: Mapping[str, tuple[int, int]]
) -> tuple[Schemes, tuple[str, ...]]:
    """Give matrices whose rows do not divide into their blocks the next smaller block size.

    Args:
        schemes: scheme of each matrix; None for float.
        shapes: shape [N, C] of each matrix.

    Returns:
        The schemes, and a sentence for each kind of matrix that got another block size.

    Raises:
        OptionsError: no smaller block size divides the rows of a matrix.
    """
    fitted: Schemes = {}
    changed: dict[tuple[int, int, int], list[str]] = {}
    impossible: dict[int, list[str]] = {}
    for name, scheme in schemes.items():
        inputs = shapes[name][1]
        size = None if scheme is None else find_block_size(inputs, scheme.block_size)
        fitted[name] = (
            scheme if scheme is None or size is None else replace(scheme, block_size=size)
        )
        if scheme is not None and size is None:
            impossible.setdefault(inputs, []).append(name)
        elif scheme is not None and size is not None and size != scheme.block_size:
            changed.setdefault((inputs, scheme.block_size, size), []).append(name)
    if impossible:
        raise OptionsError(_describe_impossible(impossible))
    return fitted, tuple(
        f"{', '.join(_summarize(names))}: blocks of {size} weights, since rows of {inputs} do not "
        f"divide into blocks of {asked}"
        for (inputs, asked, size), names in changed.items()
    )


def find_block_size(inputs: int, largest: int) -> int | None:
    """Return the largest supported block size up to `largest` that divides a row; None if none."""
    sizes = [size for size in SUPPORTED_BLOCK_SIZES if size <= largest and inputs % size == 0]
    return max(sizes, default=None)


def _describe_impossible(names_by_inputs: Mapping[int, list[str]]) -> str:
    sizes = ", ".join(map(str, SUPPORTED_BLOCK_SIZES))
    rows = " and ".join(
        f"rows of {inputs} weights ({', '.join(_summarize(names))})"
        for inputs, names in names_by_inputs.items()
    )
    names = [name for group in names_by_inputs.values() for name in group]
    patterns = [name.replace(".N.", ".*.") for name in _summarize(names)]
    advice = " ".join(f"--set '{pattern}=none'" for pattern in patterns)
    return (
        f"{rows} divide into no block size that the kernels support ({sizes}); keep these matrices "
        f"in float with {advice}, or all of them with --quant none."
    )


def _is_match(name: str, pattern: str, names: list[str]) -> bool:
    short = name.removesuffix(_WEIGHT)
    spellings = [name, short]
    if short == _EMBEDDING and f"{_HEAD}{_WEIGHT}" not in names:
        spellings += [_HEAD, f"{_HEAD}{_WEIGHT}"]
    return any(fnmatchcase(spelling, pattern) for spelling in spellings)


def _summarize(names: list[str]) -> list[str]:
    """Replace layer numbers by N, for example `layers.N.qkv_proj`, and drop duplicates."""
    short = (re.sub(r"\.\d+\.", ".N.", name.removesuffix(_WEIGHT)) for name in names)
    return list(dict.fromkeys(short))
