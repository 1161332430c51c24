"""`--set` and what it leaves alone."""

import pytest

from glm_export.errors import OptionsError
from glm_export.plan.schemes import Override, SchemeDefaults, apply_overrides, parse_override
from glm_quantize import Scheme
from support.refusals import assert_sentence

DEFAULTS = SchemeDefaults({4: 32, 8: 128}, symmetric_bits=())
NAMES = (
    "embed_tokens.weight",
    *(f"layers.{i}.{name}.weight" for i in range(12) for name in ("qkv_proj", "down_proj")),
    "lm_head.weight",
)
INT4, INT8 = Scheme(4, 32, is_symmetric=False), Scheme(8, 128, is_symmetric=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lm_head=int8", Override("lm_head", INT8)),
        (" layers.*.down_proj = int4 ", Override("layers.*.down_proj", INT4)),
        ("a=int8-b64", Override("a", Scheme(8, 64, False))),
        ("a=int8-sym", Override("a", Scheme(8, 128, True))),
        ("a=int2-b256-asym", Override("a", Scheme(2, 256, False))),
        ("a=none", Override("a", None)),
    ],
)
def test_a_specification(text: str, expected: Override) -> None:
    assert parse_override(text, DEFAULTS) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lm_head", ("--set 'lm_head'", "PATTERN=SPEC")),
        ("lm_head=", ("--set 'lm_head='", "PATTERN=SPEC")),
        ("=int8", ("--set '=int8'", "PATTERN=SPEC")),
        ("lm_head=fp8", ("'lm_head=fp8'", "lm_head=int8")),
        ("lm_head=int3", ("--set 'lm_head=int3'", "bits is 3", "choose one of 2, 4, 8")),
        ("lm_head=int8-b16", ("block size is 16", "choose one of 32, 64, 128, 256")),
    ],
)
def test_a_specification_that_is_none(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(OptionsError) as caught:
        parse_override(text, DEFAULTS)
    assert_sentence(str(caught.value), *words)


def test_the_last_match_wins_and_the_rest_keeps_the_recipe() -> None:
    overrides = [Override("layers.*.down_proj", INT8), Override("layers.1*.down_proj", None)]
    schemes, fixed = apply_overrides(NAMES, INT4, overrides)
    assert schemes["layers.0.down_proj.weight"] == INT8
    assert schemes["layers.10.down_proj.weight"] is None
    assert schemes["layers.1.down_proj.weight"] is None
    assert schemes["layers.1.qkv_proj.weight"] == INT4
    assert fixed == {f"layers.{i}.down_proj.weight" for i in range(12)}


def test_a_tied_head_is_the_embedding() -> None:
    tied = NAMES[:-1]
    assert apply_overrides(tied, INT4, [Override("lm_head", INT8)])[1] == {"embed_tokens.weight"}
    assert apply_overrides(NAMES, INT4, [Override("lm_head", INT8)])[1] == {"lm_head.weight"}


def test_a_pattern_that_matches_nothing_is_told_what_there_is() -> None:
    with pytest.raises(OptionsError) as caught:
        apply_overrides(NAMES, INT4, [Override("layers.*.q_proj", INT8)])
    assert_sentence(
        str(caught.value), "'layers.*.q_proj' matches no matrix", "layers.N.qkv_proj", "lm_head"
    )
