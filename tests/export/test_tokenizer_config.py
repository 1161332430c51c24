"""The folder's tokenizer_config.json, as transformers reads it; 4 does in `hosts/optimum/`."""

from pathlib import Path

from transformers import AutoTokenizer

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"


def test_special_tokens_and_the_padding_side_stay(sample_folder: Path) -> None:
    """The graph reads padding on both sides, so the checkpoint's choice is kept."""
    before, after = (AutoTokenizer.from_pretrained(path) for path in (SAMPLE, sample_folder))
    assert after.all_special_ids == before.all_special_ids
    assert len(after.all_special_ids) == 10
    assert after.padding_side == before.padding_side == "left"
    assert after.init_kwargs == before.init_kwargs | {
        "name_or_path": after.init_kwargs["name_or_path"]
    }
