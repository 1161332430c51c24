"""A batch job: every line of a file is a question; the answers become JSON Lines.

    python examples/batch_job.py artifacts/glm4-sample-int4 questions.txt answers.jsonl

The model answers several questions at the same time, which gives more tokens per second.
Each answer is written as soon as it is complete, so the lines come in the order of completion.
`glm-run generate --prompts` does the same with a file that an interrupted run can continue.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import glm_runtime
from glm_runtime import GlmRuntimeError, Model, Request

ROWS = 4  # Answers generated at the same time; more rows need more memory.


def make_requests(model: Model, questions: Sequence[str]) -> Iterator[Request]:
    """Render each question with the model's chat template."""
    for question in questions:
        prompt = model.prepare_chat([{"role": "user", "content": question}])
        yield Request(prompt.token_ids, form=prompt.form)


def answer_all(model: Model, questions: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield one record for each question. A failed question does not stop the others."""
    texts = [""] * len(questions)
    requests = make_requests(model, questions)
    for part in model.generate_many(requests, ROWS, temperature=0, max_new_tokens=100):
        if part.piece is None:
            yield {"question": questions[part.index], "error": str(part.error)}
            continue
        texts[part.index] += part.piece.text
        if part.piece.finish_reason:
            yield {
                "question": questions[part.index],
                "answer": texts[part.index],
                "finish_reason": part.piece.finish_reason,
            }


def main(folder: str, source: Path, target: Path) -> None:
    """Answer the questions in `source`; write one JSON object per line to `target`."""
    questions = [line for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    model = glm_runtime.load(folder)
    with target.open("w", encoding="utf-8") as file:
        for count, record in enumerate(answer_all(model, questions), 1):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            print(f"{count} of {len(questions)} answered", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    except (GlmRuntimeError, OSError) as error:
        sys.exit(f"Error: {error}")
