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

ROOT = Path(__file__).parents[3]


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


def test_the_program_of_the_page(
    tiny_folder: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415
    import ray  # noqa: PLC0415

    page = (ROOT / "docs" / "batch.md").read_text("utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    small = code.replace("/models/glm4", str(tiny_folder)).replace("=4, num_cpus=8", "=1")
    assert small.count("=1") == 1 and str(tiny_folder) in small
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions").mkdir()
    table = pa.table({"id": [7, 8], "question": ["床前明月光", "白日"]})
    pq.write_table(table, tmp_path / "questions" / "a.parquet")
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        small = small.replace('"questions/"', repr(str(tmp_path / "questions")))
        small = small.replace('"answers/"', repr(str(tmp_path / "answers")))
        exec(compile(small, "batch.md", "exec"), {})
    finally:
        ray.shutdown()
    rows = pq.read_table(tmp_path / "answers").to_pylist()
    assert sorted(row["id"] for row in rows) == [7, 8]
    assert all(row["answer"] and not row["__inference_error__"] for row in rows)


@pytest.mark.parametrize(
    "values", [{"batch_size": 0}, {"concurrency": 0}, {"concurrency": (3, 2)}, {"num_cpus": 0}]
)
def test_wrong_configurations_are_refused(values: dict[str, Any]) -> None:
    require_ray()
    with pytest.raises(SamplingError, match=next(iter(values))):
        GlmProcessorConfig("folder", **values)
