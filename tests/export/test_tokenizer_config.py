"""The folder's tokenizer_config.json, as transformers reads it; 4 does in `hosts/optimum/`."""

from pathlib import Path

from transformers import AutoTokenizer

SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"


def test_special_tokens_stay_and_rows_are_padded_on_the_right(sample_folder: Path) -> None:
    """A graph that reads the mask's sum takes padding on the left for tokens: wrong answers."""
    before, after = (AutoTokenizer.from_pretrained(path) for path in (SAMPLE, sample_folder))
    assert after.all_special_ids == before.all_special_ids
    assert len(after.all_special_ids) == 10
    assert after.init_kwargs | {"padding_side": "left"} == before.init_kwargs | {
        "name_or_path": after.init_kwargs["name_or_path"]
    }
    ids = after(["a b c", "a"], padding=True)
    assert [row[-1] for row in ids.attention_mask] == [1, 0]
