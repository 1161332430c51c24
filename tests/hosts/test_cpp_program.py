"""`glm-run` of the C++ runtime: answers, conversations, measurements, and wrong usage."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import tty
from pathlib import Path

import pytest

import glm_runtime
from glm_runtime import Conversation, GenerationSettings, SamplingSettings
from support.cpp_build import SOURCE, run_program

GREEDY = GenerationSettings(SamplingSettings(temperature=0), 48)


def test_the_program(built: Path, folder: Path, python_model: glm_runtime.Model) -> None:
    prompt = "背诵李白的《静夜思》。"
    done = run_program(
        built, "generate", folder, "--prompt", prompt, "--seed", 7, "--max-new-tokens", 40, "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    sampling = SamplingSettings(**{**vars(python_model.sampling_defaults), "seed": 7})
    settings = GenerationSettings(sampling, 40)
    expected = list(python_model.chat([{"role": "user", "content": prompt}], settings))
    assert found["token_ids"] == [piece.token_id for piece in expected]
    assert found["finish_reason"] == expected[-1].finish_reason
    lines = run_program(built, "tokenize", folder, input="In the\n床前\n")
    assert json.loads(lines.stdout.splitlines()[1]) == python_model.tokenizer.encode("床前")


def test_nothing_is_left_at_home(built: Path, folder: Path, tmp_path: Path) -> None:
    """ONNX Runtime's telemetry would keep an id of the device in the user's cache."""
    command = [built / "glm-run", "generate", folder, "--prompt", "Hi", "--max-new-tokens", "1"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    subprocess.run(command, env={**kept, "HOME": str(tmp_path)}, check=True, capture_output=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "the command is ''"),
        (("sing", "x"), 2, "the command is 'sing'"),
        (("generate", "x"), 2, "--prompt is missing"),
        (("generate", "x", "--prompt", "a", "--beams", "2"), 2, "--beams is unknown"),
        (("generate", "x", "--prompt", "a", "--prompt-file", "b"), 2, "leave one out"),
        (("generate", "x", "--prompt", "a", "--logit-bias", "7"), 2, "ID=NUMBER is expected"),
        (("generate", "x", "--prompt", "a", "--threads", "9999"), 2, "--threads is 9999 where"),
        (("generate", "x", "--prompt-file", "/nowhere"), 2, "/nowhere, which cannot be read"),
        (("bench", "x", "--rounds", "0"), 2, "--rounds is 0 where"),
        (("generate", "x", "--prompt", "a", "--seed", "-1"), 2, "--seed is '-1'"),
        (("generate", "x", "--prompt", "a", "--greedy", "--top-k", "3"), 2, "leave one out"),
        (("generate", "/nowhere", "--prompt", "a"), 1, "/nowhere is not a folder"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], code: int, text: str, built: Path) -> None:
    done = run_program(built, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_help_has_every_option(built: Path) -> None:
    """Each on a line of its own that is a whole sentence."""
    source = (SOURCE / "program" / "arguments.cpp").read_text(encoding="utf-8")
    shown = run_program(built, "--help").stdout
    lines = re.findall(r"^  (--\S+)(?: [A-Z=]+)?  +(\S.*)$", shown, re.MULTILINE)
    assert {option for option, _ in lines} == set(re.findall(r'"(--[a-z-]+)"', source))
    assert len(lines) == len(dict(lines))
    assert all(text[0].isupper() and text.endswith(".") for _, text in lines)
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_an_output_that_is_full(options: tuple[str, ...], built: Path, folder: Path) -> None:
    """Exit code 1 and a sentence, which is not that of a cancelled answer."""
    generate = ("generate", str(folder), "--prompt", "Hi", "--greedy", *options)
    for arguments in (generate, ("tokenize", str(folder)), ("--help",)):
        with Path("/dev/full").open("wb") as output:
            done = subprocess.run(
                [str(built / "glm-run"), *arguments],
                input=b"In the\n",
                stdout=output,
                stderr=subprocess.PIPE,
                check=False,
            )
        assert done.returncode == 1, arguments
        assert b"the output cannot be written" in done.stderr
        assert b"cancelled" not in done.stderr


def test_an_empty_prompt(built: Path, folder: Path) -> None:
    """Python's refusal, also where the chat's marks would make it some tokens."""
    for options in (("--prompt", ""), ("--prompt", "-"), ("--prompt", "", "--raw")):
        done = run_program(built, "generate", folder, *options, input="\n")
        assert (done.returncode, done.stdout) == (1, "")
        assert "the prompt is empty" in done.stderr


def test_interrupt(built: Path, folder: Path) -> None:
    options = ["--ignore-eos", "--raw", "--prompt", "the"]
    command = [str(built / "glm-run"), "generate", str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)  # it answers, 4096 tokens if nobody stops it
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130


def test_prompts_from_files_and_stdin(built: Path, folder: Path, tmp_path: Path) -> None:
    """The same as on the command line, but for the line's end."""
    prompt = "In the\nbeginning 床前"
    path = tmp_path / "prompt 文.txt"
    path.write_text(prompt + "\n", encoding="utf-8")
    options = ("--raw", "--greedy", "--max-new-tokens", 8, "--json")
    ways = (
        run_program(built, "generate", folder, "--prompt", prompt, *options),
        run_program(built, "generate", folder, "--prompt-file", path, *options),
        run_program(built, "generate", folder, "--prompt", "-", *options, input=prompt + "\n"),
    )
    found = [json.loads(done.stdout) for done in ways]
    for name in ("prompt_token_ids", "token_ids", "text"):
        assert found[0][name] == found[1][name] == found[2][name]


def test_stdin_that_is_no_text(built: Path, folder: Path) -> None:
    for content, text in ((b"\xff\xfe", "not valid UTF-8"), (b"a\0b", "zero byte")):
        command = [str(built / "glm-run"), "generate", str(folder), "--prompt", "-"]
        done = subprocess.run(command, input=content, capture_output=True, check=False)
        assert done.returncode == 1
        assert text in done.stderr.decode()


def test_how_an_answer_is_chosen_and_ends(
    built: Path, folder: Path, python_model: glm_runtime.Model
) -> None:
    """The options of the command line are those of the library."""
    prompt = "Recite John 3:16."
    options = ("--seed", 5, "--stop", "God", "--stop", "zzz", "--temperature", 0.9, "--ignore-eos")
    biases = ("--logit-bias", "262=-inf", "--logit-bias", "11=2.5", "--dry-multiplier", 0.7)
    done = run_program(
        built, "generate", folder, "--prompt", prompt, *options, *biases, "--json",
        "--max-new-tokens", 60, "--max-thinking-tokens", 9,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    defaults = vars(python_model.sampling_defaults)
    bias = ((262, float("-inf")), (11, 2.5))
    dry = glm_runtime.sampling.settings.DrySettings(0.7)
    sampling = {**defaults, "temperature": 0.9, "seed": 5, "logit_bias": bias, "dry": dry}
    settings = GenerationSettings(
        SamplingSettings(**sampling), 60, ("God", "zzz"), is_eos_ignored=True
    )
    expected = list(python_model.chat([{"role": "user", "content": prompt}], settings))
    assert found["token_ids"] == [piece.token_id for piece in expected]
    assert found["text"] == "".join(piece.text for piece in expected)
    assert found["finish_reason"] == expected[-1].finish_reason
    assert (found["prompt_tokens"], found["new_tokens"]) == (
        len(found["prompt_token_ids"]),
        len(found["token_ids"]),
    )


def test_a_conversation(built: Path, folder: Path, python_model: glm_runtime.Model) -> None:
    questions = ("Recite Genesis 1:1.", "背诵李白的《静夜思》。")
    conversation = Conversation(python_model, GREEDY, system="Answer briefly.")
    answers = ["".join(p.text for p in conversation.ask(question)) for question in questions]
    conversation.reset()
    answers.append("".join(piece.text for piece in conversation.ask(questions[1])))
    lines = "\n".join((*questions, "/reset", questions[1], "/exit", "never read"))
    options = ("--system", "Answer briefly.", "--greedy", "--max-new-tokens", 48)
    done = run_program(built, "chat", folder, *options, input=lines + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(answer + "\n" for answer in answers)


def test_commands_of_a_chat(built: Path, folder: Path, python_model: glm_runtime.Model) -> None:
    """/retry gives the same answer when decoding is greedy; /system changes the next one."""
    question = "Recite Genesis 1:1."
    conversation = Conversation(python_model, GREEDY)
    answers = ["".join(piece.text for piece in conversation.ask(question))] * 2
    conversation.change_system("Answer briefly.")
    answers.append("".join(piece.text for piece in conversation.retry()))
    lines = ["/retry", "/help", "/system", question, "/retry", "/system  Answer briefly."]
    lines += ["/system", "/retry", "/nope", "/reset", "/retry", "/exit"]
    options = ("--greedy", "--max-new-tokens", 48)
    done = run_program(built, "chat", folder, *options, input="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(answer + "\n" for answer in answers)
    assert done.stderr.count("there is no message to answer again") == 2
    for words in ("/system TEXT", "There is no system message.", "> Answer briefly.\n"):
        assert words in done.stderr
    assert "there is no command /nope; /help lists the commands." in done.stderr
    assert "tokens/s" not in done.stderr  # only for a terminal


def test_a_terminal_shows_the_speed_of_a_chat(built: Path, folder: Path) -> None:
    leader, follower = pty.openpty()
    options = ["--greedy", "--max-new-tokens", "8", "--no-huge-pages"]
    command = [str(built / "glm-run"), "chat", str(folder), *options]
    subprocess.run(
        command, input=b"Hello\n", stdout=subprocess.DEVNULL, stderr=follower, check=True
    )
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    os.close(follower)
    assert re.search(r"\(8 tokens, [\d.]+ tokens/s\)", shown), shown


def test_help_has_a_short_name(built: Path) -> None:
    done = run_program(built, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run_program(built, "--help").stdout
    assert "-h is the same option" in done.stdout


@pytest.mark.parametrize("option", ["--thinking", "--no-thinking"])
def test_raw_prompts_have_no_thinking(built: Path, option: str) -> None:
    """The option was ignored silently."""
    done = run_program(built, "generate", "/nowhere", "--prompt", "a", "--raw", option)
    assert done.returncode == 2
    assert "--raw cannot be used with chat, --system, --thinking" in done.stderr


def test_a_message_that_is_refused_does_not_end_the_chat(built: Path, folder: Path) -> None:
    """A zero byte once did. The next answer does not know the refused messages."""
    options = ("--greedy", "--max-new-tokens", "8")
    command = [str(built / "glm-run"), "chat", str(folder), *options]
    expected = run_program(built, *command[1:], input="Recite Genesis 1:1.\n").stdout
    lines = b"a\0b\n\xff\nRecite Genesis 1:1.\n"
    done = subprocess.run(command, input=lines, capture_output=True, check=False)
    assert done.returncode == 1  # a script learns of the refusal; it was 0 once
    assert b"contains a zero byte" in done.stderr
    assert done.stdout.decode() == expected


@pytest.mark.parametrize("ids", [(215,), (126, 249), (188, 201, 221, 198, 197)])
def test_control_characters_do_not_reach_a_terminal(
    ids: tuple[int, ...], built: Path, folder: Path
) -> None:
    """Biases choose ESC, or the two bytes of U+009B, or NUL, CR, DEL, line feed and tab."""
    options = ["--prompt", "a", "--raw", "--seed", "1", "--max-new-tokens", "40", "--top-k", "0"]
    options += [word for id_ in ids for word in ("--logit-bias", f"{id_}=1000")]
    options += ["--top-p", "1", "--temperature", "50"]
    command = [str(built / "glm-run"), "generate", str(folder), *options]
    piped = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    leader, follower = pty.openpty()
    tty.setraw(follower)  # keeps line ends
    subprocess.run(command, stdout=follower, stderr=subprocess.DEVNULL, check=True)
    shown = os.read(leader, 4096).decode()
    os.close(leader)
    os.close(follower)
    assert re.search("[\0-\x08\x0b-\x1f\x7f-\x9f]", piped)
    assert shown == re.sub("[\0-\x08\x0b-\x1f\x7f-\x9f]", "?", piped)


def test_an_interrupt_ends_the_answer_and_not_the_chat(built: Path, folder: Path) -> None:
    """In a terminal, as people have it: Ctrl-C in an answer, then a question more."""
    leader, follower = pty.openpty()
    options = ["--ignore-eos", "--greedy", "--max-new-tokens", "3000", "--no-huge-pages"]
    command = [str(built / "glm-run"), "chat", str(folder), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen(command, stdin=follower, **pipes) as process:
        answers, prompts = process.stdout.fileno(), process.stderr.fileno()
        os.set_blocking(answers, False)
        for _ in range(2):
            assert os.read(prompts, 2) == b"> "  # all of the answer before is in the pipe
            while select.select([answers], [], [], 0)[0]:
                os.read(answers, 1 << 16)
            os.write(leader, b"Recite Genesis 1:1.\n")
            assert select.select([answers], [], [], 20)[0]  # it begins
            process.send_signal(signal.SIGINT)
        assert os.read(prompts, 2) == b"> "
        os.write(leader, b"/exit\n")
        assert process.wait(20) == 0
    os.close(leader)
    os.close(follower)


def test_bench(built: Path, folder: Path) -> None:
    """The keys of Python's; what is measured fits together."""
    options = ("--prompt-tokens", 200, "--new-tokens", 8, "--rounds", 3, "--threads", 1)
    done = run_program(built, "bench", folder, *options, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["prompt_tokens"], found["new_tokens"], found["rounds"]) == (200, 8, 3)
    assert (found["threads"], found["device"]) == (1, "cpu")
    slowest, fastest = (found[f"decode_tokens_per_second_{end}"] for end in ("min", "max"))
    assert 0 < slowest <= found["decode_tokens_per_second"] <= fastest
    seconds = found["time_to_first_token_ms"] / 1000
    assert found["prefill_tokens_per_second"] == pytest.approx(200 / seconds, rel=1e-3)
    assert found["start_to_first_token_seconds"] > found["load_seconds"] > 0
    assert found["peak_rss_bytes"] > 2**20
    shown = run_program(built, "bench", folder, *options)
    assert shown.stdout.startswith("decode ")
    long = run_program(built, "bench", folder, "--prompt-tokens", 4000, "--new-tokens", 97)
    assert (long.returncode, long.stdout) == (1, "")
    assert "4097 tokens do not fit into the model's context of 4096" in long.stderr
