"""Tasks of lm-evaluation-harness over verses that the sample model has not seen, without a hub."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_TEXT = ROOT / "export" / "glm_export" / "data" / "evaluation.txt"
NUM_VERSES = 8
CHOICES, CLOZE, WHOLE, RECITE = "verse_choices", "verse_cloze", "verse_whole", "verse_recite"
TASKS = (CHOICES, CLOZE, WHOLE, RECITE)
_ASKED = ("Genesis 1:1", "John 11:35", "Psalms 23:1")


def read_verses(count: int = NUM_VERSES) -> list[str]:
    """The first held-out verses of at least twelve words."""
    lines = _TEXT.read_text(encoding="utf-8").splitlines()
    verses = [re.sub(r"^\d+ ", "", line) for line in lines if re.match(r"^\d+ ", line)]
    return [verse for verse in verses if len(verse.split()) >= 12][:count]


def write_tasks(folder: Path, count: int = NUM_VERSES) -> Path:
    """Write all tasks and their documents into a new folder, for `--include_path`."""
    folder.mkdir()
    verses = read_verses(count)
    cut = [(" ".join(verse.split()[:8]), " ".join(verse.split()[8:12])) for verse in verses]
    endings = [end for _, end in cut]
    choices = [
        {
            "question": begin,
            "choices": [endings[(index + step) % len(endings)] for step in range(4)],
            "answer": 0,
        }
        for index, (begin, _) in enumerate(cut)
    ]
    acc = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    _write(
        folder,
        CHOICES,
        choices,
        output_type="multiple_choice",
        doc_to_text="{{question}}",
        doc_to_choice="choices",
        doc_to_target="answer",
        metric_list=acc,
    )
    _write(
        folder,
        CLOZE,
        [{"text": begin, "end": end} for begin, end in cut],
        output_type="loglikelihood",
        doc_to_text="{{text}}",
        doc_to_target=" {{end}}",
        metric_list=[{"metric": "perplexity", "aggregation": "perplexity"}, *acc],
    )
    whole = [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}]
    _write(
        folder,
        WHOLE,
        [{"page": verse} for verse in verses],
        output_type="loglikelihood_rolling",
        doc_to_text="",
        doc_to_target="{{page}}",
        metric_list=whole,
    )
    _write(
        folder,
        RECITE,
        [{"question": f"Recite {name}.", "answer": "In the beginning"} for name in _ASKED],
        output_type="generate_until",
        doc_to_text="{{question}}",
        doc_to_target="{{answer}}",
        generation_kwargs={"until": ["."], "max_gen_toks": 24},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )
    return folder


def _write(folder: Path, name: str, documents: Sequence[Mapping[str, Any]], **task: object) -> None:
    lines = [json.dumps(document, ensure_ascii=False) for document in documents]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / f"{name}.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
        "num_fewshot": 0,
        **task,
    }
    # JSON is YAML.
    (folder / f"{name}.yaml").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
