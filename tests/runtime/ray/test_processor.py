"""The processor for datasets of Ray Data, beside answers without Ray."""

import json
from pathlib import Path
from typing import Any

import pytest

from glm_runtime import Model
from glm_runtime.errors import SamplingError
from glm_runtime.ray import GlmProcessorConfig, build_processor
from runtime.ray.conftest import require_ray
from runtime.ray.jobs import GREEDY, answer_alone, make_lines


def test_a_dataset_gets_answers_and_a_row_that_fails_an_error(
    tiny_folder: Path, tiny_model: Model, cluster: Any
) -> None:
    """The two functions are inside, since workers cannot import this file."""
    import ray  # noqa: PLC0415

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": row["question"]}],
            "sampling_params": {"temperature": 0, "max_new_tokens": 24},
        }

    def take(row: dict[str, Any]) -> dict[str, Any]:
        return {"name": row["name"], "tokens": json.dumps(row["generated_tokens"])}

    ray.init(address=cluster.address, log_to_driver=False)
    lines = make_lines(24)
    rows = [{"name": one["custom_id"], "question": one["prompt"]} for one in lines]
    rows[3]["question"] = "0" * 900
    config = GlmProcessorConfig(
        str(tiny_folder), batch_size=4, max_num_seqs=4, should_continue_on_error=True
    )
    processor = build_processor(config, preprocess=ask, postprocess=take)
    try:
        found = {one["name"]: one for one in processor(ray.data.from_items(rows)).take_all()}
    finally:
        ray.shutdown()
    expected = answer_alone(tiny_model, [*lines[:3], *lines[4:]], GREEDY)
    good = {name: json.loads(one["tokens"]) for name, one in found.items() if one.get("tokens")}
    assert good == expected
    assert "context length is 256" in found["q3"]["__inference_error__"]
    assert found["q0"]["__inference_error__"] == ""


@pytest.mark.parametrize(
    "values", [{"batch_size": 0}, {"concurrency": 0}, {"concurrency": (3, 2)}, {"num_cpus": 0}]
)
def test_wrong_configurations_are_refused(values: dict[str, Any]) -> None:
    require_ray()
    with pytest.raises(SamplingError, match=next(iter(values))):
        GlmProcessorConfig("folder", **values)
