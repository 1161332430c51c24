"""lm-eval's models of a server against `glm-run serve`: the numbers of the folder itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")

from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from glm_lm_eval.model import GlmOnnx
from support.harness_models import ask, open_ours
from support.servers import ServerProcess, start_server
from support.verse_tasks import read_verses

# Chunks of the server and of one process add in another order, with int8 activations.
CLOSE = 0.1
NAMES = ("Genesis 1:1", "John 11:35", "Psalms 23:1")


@pytest.fixture(scope="module")
def served(sample_folder: Path) -> Iterator[ServerProcess]:
    with start_server(f"sample={sample_folder}", "--threads", 1, "--no-huge-pages") as found:
        yield found


@pytest.fixture(scope="module")
def alone(sample_folder: Path) -> GlmOnnx:
    return open_ours(sample_folder)


@pytest.mark.parametrize(
    ("is_tokenized", "batch_size"), [(True, 1), (True, 3), (False, 1), (False, 3)]
)
def test_completions_have_the_numbers_of_the_folder(
    served: ServerProcess, alone: GlmOnnx, sample_folder: Path, is_tokenized: bool, batch_size: int
) -> None:
    api = LocalCompletionsAPI(
        base_url=f"{served.url}/v1/completions",
        tokenizer_backend="huggingface",
        tokenizer=str(sample_folder),
        model="sample",
        tokenized_requests=is_tokenized,
        batch_size=batch_size,
        max_length=4096,
    )
    words = " ".join(read_verses(2)).split()
    pairs = [(" ".join(words[:count]), f" {words[count]}") for count in (1, 5, 20, 40)]
    pairs.append(("床前", "明月光"))
    requests = ask("loglikelihood", *pairs, ("", "In the beginning"))
    found, expected = api.loglikelihood(requests, True), alone.loglikelihood(requests, True)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], abs=CLOSE)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    wish = {"until": ["."], "max_gen_toks": 6}
    answers = ask("generate_until", *((f"And {name}", wish) for name in NAMES))
    assert api.generate_until(answers, True) == alone.generate_until(answers, True)


def test_chat_completions_answer_as_the_folder(served: ServerProcess, alone: GlmOnnx) -> None:
    api = LocalChatCompletion(base_url=f"{served.url}/v1/chat/completions", model="sample")
    wish = {"until": ["."], "max_gen_toks": 12}
    chats = [[{"role": "user", "content": f"Recite {name}."}] for name in NAMES]
    theirs = ask("generate_until", *((api.apply_chat_template(chat), wish) for chat in chats))
    ours = ask("generate_until", *((alone.apply_chat_template(chat), wish) for chat in chats))
    found, expected = api.generate_until(theirs, True), alone.generate_until(ours, True)
    # The server leaves out the line end with which an answer begins.
    assert found == [text.lstrip("\n") for text in expected]
    assert any(found)
