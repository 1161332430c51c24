"""README.md, CONTRIBUTING.md and docs/ as a newcomer reads them.

Commands parse, files and links exist, no sentence stands twice. The Python blocks of docs/python.md
run in tests/runtime/test_guide.py, those of docs/hosts.md in tests/hosts/test_page.py, that of
docs/batch.md in tests/runtime/ray/test_processor.py;
docs/cpp.md, docs/node.md and docs/web.md have tests of their own hosts.
"""

import re
import runpy
import shlex
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from glm_export import cli, evaluate_cli
from glm_runtime.cli import cli as run_group

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SITE = PROJECT["urls"]["Source"]
COMMANDS: dict[str, click.Command] = {
    "glm-export": cli.command,
    "glm-eval": evaluate_cli.command,
    **{f"glm-run {name}": command for name, command in run_group.commands.items()},
}
OTHER_HOSTS = {"cpp.md", "node.md", "web.md"}
DOCS = sorted((ROOT / "docs").glob("*.md"))
CHECKED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"] + [
    page for page in DOCS if page.name not in {*OTHER_HOSTS, "cli.md"}
]
MADE = ("artifacts/",)  # what the commands make
# Of a benchmark, of all commands, and of optimum-cli.
FOREIGN_OPTIONS = {"--cpp", "--help", "--model", "--task"}
FOREIGN_OPTIONS |= {"--model_args", "--tasks", "--batch_size", "--limit", "--include_path"}
FOREIGN_OPTIONS |= {"--apply_chat_template", "--system_instruction", "--fewshot_as_multiturn"}
FOREIGN_OPTIONS |= {"--log_samples", "--use_cache", "--gen_kwargs"}


def list_markdown() -> list[Path]:
    places = ("*.md", "docs/*.md", "benchmarks/*.md", "sample/*.md", "runtime/**/*.md")
    places += ("export/**/*.md", "examples/**/*.md", "artifacts/glm4-sample/*.md")
    pages = {page for place in places for page in ROOT.glob(place)}
    return sorted(page for page in pages if "node_modules" not in page.parts)


def find_blocks(page: Path, *languages: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [body for language, body in found if language in languages]


def list_shell_lines() -> list[tuple[str, str]]:
    return [
        (page.name, line)
        for page in CHECKED
        for block in find_blocks(page, "sh", "bash", "")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def parse(words: list[str]) -> None:
    """Refuse what the command itself would refuse."""
    name, arguments = words[0], words[1:]
    if name == "glm-run":
        name, arguments = f"glm-run {words[1]}", words[2:]
    COMMANDS[name].make_context(name, arguments)


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 1200


def test_the_readme_begins_with_the_clone_and_the_two_commands() -> None:
    lines = find_blocks(ROOT / "README.md", "sh")[0].splitlines()
    assert lines == [f"git clone {SITE}", "cd glm-export", "make demo", "make test"]


def test_the_readme_shows_every_program() -> None:
    shown = "\n".join(find_blocks(ROOT / "README.md", "sh"))
    assert all(f"{name} " in shown for name in ("glm-export", "glm-eval", "glm-run"))


@pytest.mark.parametrize(("page", "line"), list_shell_lines(), ids=str)
def test_a_shell_line_works(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    match words:
        case [("glm-export" | "glm-eval" | "glm-run"), *_]:
            parse(words)
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install", *arguments]:
            check_install(arguments)
        case ["lm_eval", *options] | ["python", "-m", "glm_lm_eval", *options]:
            pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra lm-eval)")
            from lm_eval._cli.harness import HarnessCLI  # noqa: PLC0415

            HarnessCLI()._parser.parse_args(["run", *options])
        case [".venv/bin/pytest" | ".venv/bin/python" | "python", path, *_]:
            assert (ROOT / path).exists()
        case ["docker", "build", "-t", "glm-run", "."]:
            assert (ROOT / "Dockerfile").exists()
        case ["docker", "run", *options]:
            parse(options[options.index("glm-run") :])
        case ["git", "clone", url]:
            assert url == SITE
        case ["ray", "start", ("--head" | "--address"), *_]:
            pass
        case ["export", "RAY_AUTH_MODE=token", *rest]:  # as test_networks.py sets them
            assert all(word.split("=")[0] == "RAY_AUTH_TOKEN" for word in rest[:1])
        case ["cd", _] | [".", ".venv/bin/activate"] | ["py", "-m", "venv", ".venv"]:
            pass
        case _:
            assert line == r".venv\Scripts\Activate.ps1", "say here how this line is checked"


def check_install(arguments: list[str]) -> None:
    for word in arguments:
        if match := re.fullmatch(r"(\.|glm-export)\[([\w,-]+)\]", word):
            assert set(match[2].split(",")) <= PROJECT["optional-dependencies"].keys()
        else:
            assert word in ("-c", "lm-eval[hf]") or (ROOT / word).exists()


def list_options(command: click.Command) -> set[str]:
    return {
        name for parameter in command.params for name in parameter.opts + parameter.secondary_opts
    }


def test_options_in_the_text_exist() -> None:
    known = FOREIGN_OPTIONS.union(*map(list_options, COMMANDS.values()))
    for page in CHECKED:
        for span in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            unknown = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span)) - known
            assert not unknown, page.name


@pytest.mark.parametrize("name", ["glm-export", "glm-eval"])
def test_help_shows_three_examples(name: str) -> None:
    result = CliRunner().invoke(COMMANDS[name], ["--help"])
    assert result.exit_code == 0
    examples = [line for line in result.output.splitlines() if line.strip().startswith(name)]
    assert len(examples) == 3
    for line in examples:
        parse(shlex.split(line))


def test_the_command_line_page_is_current() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_cli.py"))
    current = page["PAGE"].read_text(encoding="utf-8")
    assert page["render"]() == current, "a help text changed: run `python docs/make_cli.py`"


def test_python_blocks_run(
    sample_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_python = [page.name for page in CHECKED if find_blocks(page, "python")]
    assert with_python == [
        "README.md",
        "batch.md",
        "hosts.md",
        "python.md",
        "server.md",
    ]  # the others: see above
    (code,) = find_blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(sample_folder.parents[1])
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.name)
def test_files_it_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    rooms = "export|quantize|runtime|tests|benchmarks|artifacts|docs|sample|examples"
    for name in set(re.findall(rf"`((?:{rooms})/[\w./-]+)`", text)):
        assert name.startswith(MADE) or (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.removeprefix(f"{SITE}/blob/main/").partition("#")
        target = target.removeprefix(f"{SITE}/tree/main/")
        if target.startswith("http"):
            continue
        place = ROOT if link.startswith(SITE) else page.parent
        file = (place / target) if target else page
        assert file.exists(), link
        if anchor:
            assert anchor in list_anchors(file), link


def list_anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def list_sentences(text: str) -> Iterator[str]:
    text = re.sub(r"^```.*?^```", "\n", text, flags=re.DOTALL | re.MULTILINE)
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.) ?)|\|", text):
        for sentence in re.split(r"(?<=[.!?])\s+", paragraph):
            yield " ".join(re.findall(r"\w[\w'-]*", sentence.lower()))


def test_blocks_of_the_site_name_one_language() -> None:
    """With two words behind the fence, mkdocs takes the end of a block for a beginning."""
    for page in DOCS:
        fences = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) % 2 == 0
        assert all(re.fullmatch(r"\w+", fence) for fence in fences[::2]), page.name
        assert not any(fences[1::2]), page.name


def test_no_sentence_stands_twice() -> None:
    places = defaultdict(list)
    for page in list_markdown():
        for sentence in list_sentences(page.read_text(encoding="utf-8")):
            if len(sentence.split()) >= 12:
                places[sentence].append(str(page.relative_to(ROOT)))
    assert len(places) > 200
    assert {sentence: found for sentence, found in places.items() if len(found) > 1} == {}


def test_estimates_follow_from_their_figures() -> None:
    """Decode is half of the bandwidth over the file; memory 1.2 times the file."""
    table = README.partition("\n| machine |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if "GB |" in line]
    bandwidths = {"Pi": 17.1, "DDR4": 51.2, "DDR5": 89.6, "CUDA": 1008}
    assert len(rows) == len(bandwidths)
    for row, (mark, bandwidth) in zip(rows, bandwidths.items(), strict=True):
        assert mark in row
        options, file, memory, decode = (cell.strip() for cell in row.split("|")[3:7])
        assert f"{options.strip('`')} -o artifacts/" in README
        size = float(file.removesuffix(" GB"))
        assert float(decode.split()[0]) == round(bandwidth / 2 / size)
        if "estimated" in memory:
            assert float(memory.split()[0]) == pytest.approx(1.2 * size, rel=0.03)


def test_figures_of_the_readme_are_results() -> None:
    """Each measured figure stands in the tables, and those of the picture can be drawn."""
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    quality, speed = "0.0130 0.0264 0.0135 5.16 5.13 39,999", "1.13 1.18 5.9"
    for figure in f"{quality} {speed} 0.59 0.71 0.56 83 1.05 5.05".split():
        for place in (README, text):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", place), figure
    points = runpy.run_path(str(ROOT / "docs" / "draw_quality.py"))["read_points"](text)
    assert len(points) >= 26
    assert len({point.series for point in points}) == 4


# What a command makes: its place in the repository, by the words that name it.
_MAKES = (
    (r"cmake .*-B (\S+)", "{}/CMakeCache.txt"),
    (r"cmake --install .*--prefix (\S+)", "{}/lib/libglm.so"),
    (r"\bcc .*-o (\S+)", "{}"),
    (r"mkdir ([\w-]+) && cd", "{}/package.json"),
    (r"npm pack \./runtime/node()", "glm-runtime-0.1.0.tgz"),
    (r"(?:glm-export|glm-eval) .*(?:-o|--plot|--layers) (\S+)", "{}"),
    (r"DONNXRUNTIME_ROOT=\$PWD/(\S+)", "{}/include/onnxruntime_c_api.h"),
)


def list_made_files() -> set[str]:
    blocks = [block for page in list_markdown() for block in find_blocks(page, "sh", "")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    made = {
        place.format(name)
        for line in lines
        for pattern, place in _MAKES
        for name in re.findall(pattern, line)
    }
    return made | {"examples/node/package-lock.json", "runtime/web/dist/index.html"}


def test_git_ignores_what_the_commands_of_the_pages_make() -> None:
    """They left untracked files beside the sources."""
    made = sorted(list_made_files())
    assert len(made) > 15
    command = ["git", "check-ignore", "--no-index", *made]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("needs a clone of the repository")
    assert sorted(set(made) - set(done.stdout.splitlines())) == []


def test_programs_for_node_name_their_file() -> None:
    """A reader did not know where to save a block."""
    for page in (ROOT / "docs" / "node.md", ROOT / "runtime" / "node" / "README.md"):
        before = re.findall(r"((?:.*\n){0,4})^```js\n", page.read_text(), re.MULTILINE)
        assert before
        for text in before:
            assert re.search(r"Save this as\s`my-project/\w+\.mjs`", text), text
