"""Every option of sampling and length is declared once, and the rest is made of that."""

import math
import re
from pathlib import Path

import click
import pytest

from glm_runtime import BeamSettings, DrySettings, GenerationSettings, SamplingError
from glm_runtime import SamplingSettings as Sampling
from glm_runtime.cli import cli
from glm_runtime.sampling.option import Option, list_options

RECORDS = {Sampling: "", DrySettings: "dry_", GenerationSettings: "", BeamSettings: ""}
DECLARED = [
    pytest.param(record, prefix, field.name, option, id=prefix + field.name)
    for record, prefix in RECORDS.items()
    for field, option in list_options(record)
]


@pytest.mark.parametrize(("record", "prefix", "name", "option"), DECLARED)
def test_generate_has_the_option_with_its_help(
    record: type, prefix: str, name: str, option: Option
):
    if name == "max_length":
        return  # for Python only: --max-new-tokens does the same more clearly
    params = {param.name: param for param in cli.commands["generate"].params}
    param = params[prefix + name]
    assert isinstance(param, click.Option) and param.help is not None
    assert param.help.startswith(option.help)
    assert option.help[0].isupper() and option.help.endswith(".")


@pytest.mark.parametrize(("record", "prefix", "name", "option"), DECLARED)
def test_the_ends_of_each_range_are_allowed_and_what_lies_beyond_is_refused(
    record: type, prefix: str, name: str, option: Option
):
    inside = [option.maximum] if option.maximum < math.inf else []
    outside = [option.maximum + 1] if option.maximum < math.inf else []
    if option.minimum > -math.inf:
        (outside if option.is_above else inside).append(option.minimum)
        outside.append(option.minimum - 1)
    for value in inside:
        record(**{name: value})
    for value in outside:
        words = re.escape(f"{prefix}{name} is {value} where {option.range} is expected; ")
        with pytest.raises(SamplingError, match=words + re.escape(option.advice)):
            record(**{name: value})


@pytest.mark.parametrize("digits", [400, 5000])  # Python does not write 5,000 digits
@pytest.mark.parametrize(("record", "prefix", "name", "option"), DECLARED)
def test_whole_numbers_that_no_float_holds_are_refused(
    record: type, prefix: str, name: str, option: Option, digits: int
):
    """They once ended in an OverflowError, so that one line of --prompts ended the whole file."""
    if name not in ("logit_bias", "stop"):  # these hold no number
        with pytest.raises(SamplingError, match=f"{prefix}{name} is "):
            record(**{name: 10**digits})


def test_no_default_is_outside_its_range():
    for record in RECORDS:
        record()


def test_the_guide_names_every_sampling_option():
    guide = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8").lower()
    names = [field.name.removesuffix("_penalty") for field, _ in list_options(Sampling)]
    assert not [name for name in names if not re.search(name.replace("_", "[- _]"), guide)]
