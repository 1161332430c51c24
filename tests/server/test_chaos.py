"""Many clients at once: they ask, misbehave and go away, and no answer changes."""

import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import glm_runtime
from glm_export import ExportOptions, export
from support.chaos_clients import CHAT, Chaos, connect, list_questions, read_answers, write_request
from support.servers import ServerProcess, start_server

_SAMPLE = Path(__file__).parents[2] / "artifacts" / "glm4-sample"
# Float kernels, one thread: the order of additions then depends on nothing else.
_CONTEXT_GB = 0.1
_PAUSE_SECONDS = 3.0
_OPTIONS = ("--threads", 1, "--no-huge-pages", "--context-memory", _CONTEXT_GB)


@pytest.fixture(scope="module")
def float_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample without quantization, whose answers do not depend on what else runs."""
    output = tmp_path_factory.mktemp("float") / "sample"
    export(ExportOptions(_SAMPLE, output, quant="none", verify="none"))
    return output


@pytest.fixture(scope="module")
def float_server(float_folder: Path) -> Iterator[ServerProcess]:
    with start_server(f"sample={float_folder}", *_OPTIONS) as found:
        yield found


@pytest.fixture(scope="module")
def float_model(float_folder: Path) -> glm_runtime.Model:
    return glm_runtime.load(float_folder, "cpu", 1)


def read_metric(server: ServerProcess, name: str) -> float:
    text = server.request("/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def wait_until_idle(server: ServerProcess) -> None:
    """Wait until no answer runs or waits; only a row that is lost takes minutes."""
    deadline = time.monotonic() + 300
    while read_metric(server, "glm_running{") or read_metric(server, "glm_waiting{"):
        assert time.monotonic() < deadline, "a row is lost"
        time.sleep(0.05)


def check_log(server: ServerProcess) -> None:
    """The log must have the lines of requests only."""
    faults = [line for line in server.log if "Traceback" in line or "fault" in line]
    assert not faults, "".join(server.log[-100:])


def run_chaos(server: ServerProcess, model: glm_runtime.Model, visits: int, growth: float) -> None:
    """Let clients visit a server; compare its answers with single runs, and its memory.

    The bounded caches fill up as long as there are new prompts, so their bytes are subtracted. The
    rest, some 170 MB, may grow by a share of it in the second half: glibc's arenas are fragmented
    in another way each time, and the first visits of each kind import modules and fill pools.
    """
    chaos = Chaos(server)
    with connect(server), connect(server) as half:  # open from the beginning to the end
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: ")
        chaos.run(range(visits // 2))
        wait_until_idle(server)
        middle = measure_memory(server)
        chaos.run(range(visits // 2, visits))
        wait_until_idle(server)
        end = measure_memory(server)
    print(chaos.counts, f"{middle / 1e6:.1f} MB, then {end / 1e6:.1f} MB")
    assert end < middle * (1 + growth)
    check_answers(server, model, chaos)
    assert server.request("/health").status == 200
    check_log(server)


def measure_memory(server: ServerProcess) -> float:
    """Return the resident memory without KV caches and prefix cache, in bytes."""
    time.sleep(_PAUSE_SECONDS)  # in which the server gives freed memory back
    cached = read_metric(server, "glm_context_bytes{")
    assert cached <= _CONTEXT_GB * 1e9
    print(f"caches {cached / 1e6:.1f} MB")
    return float(psutil.Process(server.process.pid).memory_info().rss) - cached


def check_answers(server: ServerProcess, model: glm_runtime.Model, chaos: Chaos) -> None:
    """Compare all complete answers with those of an idle server, and of the model itself."""
    assert chaos.answers
    questions = list_questions()
    for number, answers in chaos.answers.items():
        path, body = questions[number]
        alone = read_answers(server.request(path, body))
        assert all(answer == alone for answer in answers), (number, alone)
        if is_plain(body):
            assert alone[0][0] == answer_alone(model, body)


def is_plain(body: dict[str, Any]) -> bool:
    """Return whether a request has neither tools nor a grammar nor several choices."""
    return body.keys() == {"messages", "temperature", "max_tokens"}


def answer_alone(model: glm_runtime.Model, body: dict[str, Any]) -> str:
    options = glm_runtime.ChatOptions(is_sanitized=True)
    settings = {"temperature": 0.0, "max_new_tokens": body["max_tokens"]}
    return "".join(piece.text for piece in model.chat(body["messages"], None, options, **settings))


def test_chaos(float_server: ServerProcess, float_model: glm_runtime.Model) -> None:
    run_chaos(float_server, float_model, 300, 0.12)


@pytest.mark.exhaustive
def test_more_chaos(float_folder: Path, float_model: glm_runtime.Model) -> None:
    with start_server(f"sample={float_folder}", *_OPTIONS) as server:
        run_chaos(server, float_model, 2000, 0.05)


def test_answers_do_not_depend_on_arrivals(
    float_server: ServerProcess, float_model: glm_runtime.Model
) -> None:
    plain = [(path, body) for path, body in list_questions() if is_plain(body)]
    chosen = random.Random(0)
    asked = [(*chosen.choice(plain), chosen.expovariate(1 / 0.03)) for _ in range(40)]

    def arrive(pool: ThreadPoolExecutor) -> Iterator[Any]:
        for path, body, pause in asked:
            time.sleep(pause)
            yield pool.submit(float_server.request, path, body)

    with ThreadPoolExecutor(len(asked)) as pool:
        replies = [future.result(300) for future in list(arrive(pool))]
    expected = {str(body): answer_alone(float_model, body) for _, body in plain}
    for (_, body, _), reply in zip(asked, replies, strict=True):
        assert read_answers(reply)[0][0] == expected[str(body)]


def test_a_second_turn_reads_only_what_is_new(
    float_server: ServerProcess, float_model: glm_runtime.Model
) -> None:
    messages: Any = [{"role": "user", "content": "请背诵张九龄的诗。" + "明月。" * 150}]
    body = {"messages": messages, "temperature": 0, "max_tokens": 60}
    first = float_server.request(CHAT, body).json
    before = read_metric(float_server, "glm_prompt_tokens_total")
    messages += [first["choices"][0]["message"], {"role": "user", "content": "再背诵一首。"}]
    messages[1] = {"role": "assistant", "content": messages[1]["content"]}
    usage = float_server.request(CHAT, body).json["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    # The last token of an answer is never read. Its text may be other tokens when it is encoded
    # with what follows, and the template may put a line break before it, but not the prompt's.
    prompt_tokens = len(float_model.prepare_chat(messages[:1]).token_ids)
    assert cached >= prompt_tokens - 8
    assert cached >= first["usage"]["total_tokens"] - 16
    read = read_metric(float_server, "glm_prompt_tokens_total") - before
    assert read == usage["prompt_tokens"] - cached


def test_a_server_that_was_killed_goes_on_from_its_disk(
    float_folder: Path, float_model: glm_runtime.Model, tmp_path: Path
) -> None:
    """`kill -9` in the middle of everything; nothing on the disk is damaged."""
    options = (f"sample={float_folder}", *_OPTIONS, "--prompt-cache", tmp_path / "cache")
    questions = list_questions()
    kept = max(
        (number for number, (_, body) in enumerate(questions) if is_plain(body)),
        key=lambda number: len(str(questions[number][1])),
    )
    for round_number in range(2):
        with start_server(*options) as server:
            alone = server.request(*questions[kept])
            assert alone.status == 200
            cached = alone.json["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert (cached > 0) == (round_number > 0)
            assert read_answers(alone)[0][0] == answer_alone(float_model, questions[kept][1])
            for number, (path, body) in enumerate(questions):
                if number % 3 == 0:
                    server.request(path, body)
            wait_for_files(tmp_path / "cache")
            kill_under_load(server, questions)
            assert not [line for line in server.log if "damaged" in line or "Traceback" in line]
    with start_server(*options) as server:
        chaos = Chaos(server)
        for number, (path, body) in enumerate(questions):
            chaos.answers[number] = [read_answers(server.request(path, body))]
        assert read_metric(server, "glm_cached_tokens_total") > 100
        check_answers(server, float_model, chaos)
        assert not [line for line in server.log if "damaged" in line or "Traceback" in line]


def wait_for_files(folder: Path) -> None:
    """Wait until the thread of the prompt cache has written something."""
    deadline = time.monotonic() + 300
    while len(list(folder.rglob("*.kv"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_under_load(server: ServerProcess, questions: list[tuple[str, dict[str, Any]]]) -> None:
    """Kill a server while it answers and writes prefixes."""
    connections = [connect(server) for _ in range(8)]
    for index, connection in enumerate(connections):
        path, body = questions[index]
        text = "".join(message["content"] for message in body["messages"])
        body = {"messages": [{"role": "user", "content": f"{index} {text * 5}"}], "max_tokens": 5}
        connection.sendall(write_request(path, body))
    assert connections[0].recv(1)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(300)
    for connection in connections:
        connection.close()
