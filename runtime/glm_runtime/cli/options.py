"""Options that several commands share: folder, machine, tools.

Options about sampling and length are in `generation_options.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from glm_runtime.cli.hub import FolderPath, find_folder
from glm_runtime.cli.progress import say, show_progress
from glm_runtime.errors import PromptError, SamplingError
from glm_runtime.folder.manifest import read_manifest
from glm_runtime.folder.strict_json import parse_json
from glm_runtime.graph.inference import DEVICE_CHOICES, DeviceChoice
from glm_runtime.graph.machine import MAX_THREADS, count_logical_processors
from glm_runtime.graph.prepared import PreparedModels
from glm_runtime.graph.rotary import ROPE_SCALINGS, RopeScaling
from glm_runtime.model import Model, load
from glm_runtime.text.chat_messages import ChatOptions, Tool

Command = TypeVar("Command", bound=Callable[..., object])
Decorator = Callable[[Any], Any]  # what `click.option` returns

PATH = click.Path(path_type=Path)
folder_argument = click.argument("folder", metavar="DIR", type=FolderPath())
json_option = click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")


def count_option(flag: str, text: str, default: int | None = None) -> Decorator:
    """Return an option that takes a number from 1 on, and shows its default."""
    kind = click.IntRange(min=1)
    has_default = default is not None
    return click.option(
        flag, metavar="N", type=kind, default=default, show_default=has_default, help=text
    )


@dataclass(frozen=True)
class MachineOptions:
    """Where to run, and what to do while loading.

    Attributes:
        device: the device to run on.
        threads: number of CPU threads; `None` takes the physical cores.
        verify: whether to check the hash of every file.
        huge_pages: whether to move the weights onto huge pages; `None` leaves it to the command.
        cuda_graph: whether to record a CUDA graph; `None` leaves it to the folder.
        rope_scaling: rotary settings instead of the folder's; `None` keeps them.
        factor: YaRN scaling factor.
        original_context: training context for YaRN; `None` takes the folder's.
    """

    device: DeviceChoice
    threads: int | None
    verify: bool
    huge_pages: bool | None
    cuda_graph: bool | None
    rope_scaling: str | None = None
    factor: float | None = None
    original_context: int | None = None

    @property
    def scaling(self) -> RopeScaling | None:
        """The rotary settings at load.

        Raises:
            UsageError: a value is missing, or has no effect.
        """
        if self.rope_scaling is None:
            if self.factor is not None or self.original_context is not None:
                raise click.UsageError(
                    "--factor and --original-context have no effect without --rope-scaling yarn; "
                    "add it, or leave them out."
                )
            return None
        try:
            return RopeScaling(self.rope_scaling, self.factor, self.original_context)
        except SamplingError as error:
            raise click.UsageError(str(error)) from error


@dataclass(frozen=True)
class ChatInputs:
    """What a chat offers to the model besides messages.

    Attributes:
        tools: JSON file of tools.
        thinking: value of the template's `enable_thinking`; `None` leaves it to the template.
        is_sanitized: whether control tokens in messages are read as text; `None` is the command's
            default.
    """

    tools: Path | None
    thinking: bool | None
    is_sanitized: bool | None

    def refuse_use(self, kind: str) -> None:
        """Refuse the options where they would have no effect.

        Raises:
            click.UsageError: an option was given.
        """
        given = {
            "--tools": self.tools,
            "--thinking": self.thinking,
            "--sanitize": self.is_sanitized,
        }
        flag = next((name for name, value in given.items() if value is not None), None)
        if flag is not None:
            raise click.UsageError(f"{flag} has no effect with {kind}; leave one of them out.")

    @property
    def has_servers(self) -> bool:
        """Whether the file of tools configures MCP servers, as MCP hosts write it.

        Raises:
            PromptError: the file is not JSON.
            OSError: the file cannot be read.
        """
        return self.tools is not None and _names_servers(_parse_tools(self.tools))

    def read(self, *, is_sanitized: bool, offered: Sequence[Tool] | None = None) -> ChatOptions:
        """Read the file of tools.

        Args:
            is_sanitized: the default of the command.
            offered: tools instead of the file's, where it configures MCP servers.

        Raises:
            PromptError: the file is not a JSON list of tools, or a tool has no name.
            OSError: the file cannot be read.
        """
        tools = tuple(offered or ())
        if offered is None and self.tools is not None:
            tools = tuple(_read_tools(self.tools))
        chosen = is_sanitized if self.is_sanitized is None else self.is_sanitized
        return ChatOptions(tools, self.thinking, is_sanitized=chosen)


def _use_processors(
    _context: click.Context, _parameter: click.Parameter, threads: int | None
) -> int | None:
    """Take no more threads than there are processors: more only wait for each other."""
    processors = count_logical_processors()
    if threads is None or threads <= processors:
        return threads
    say(
        f"--threads {threads} is more than the {processors} logical processors; taking {processors}"
    )
    return processors


_ROPE_OPTIONS = (
    click.option(
        "--rope-scaling",
        type=click.Choice(ROPE_SCALINGS),
        help="On the CPU, replace the folder's rotary settings: yarn extends the context by "
        "--factor, none turns YaRN off.  [default: as exported]",
    ),
    click.option("--factor", metavar="X", type=float, help="YaRN scaling factor, for example 4."),
    count_option(
        "--original-context",
        "Number of tokens of the training context, for YaRN.  [default: the folder's]",
    ),
)


def rope_options(command: Command) -> Command:
    """Add the options about rotary settings alone, as an argument `machine` on the CPU."""

    def build(values: dict[str, Any]) -> MachineOptions:
        return MachineOptions(
            device="cpu", threads=None, verify=True, huge_pages=None, cuda_graph=None, **values
        )

    return gather("machine", _ROPE_OPTIONS, build, command)


def machine_options(command: Command) -> Command:
    """Add the options of `MachineOptions`, as one argument `machine`."""
    options = (
        click.option(
            "--device",
            type=click.Choice(DEVICE_CHOICES),
            default="auto",
            show_default=True,
            help="Device to run on. auto takes CUDA where onnxruntime offers it, else the CPU. "
            "Devices other than the CPU are untested by glm-export's authors.",
        ),
        click.option(
            "--threads",
            metavar="N",
            type=click.IntRange(1, MAX_THREADS),
            callback=_use_processors,
            help="Number of CPU threads, at most the logical processors.  [default: the physical "
            "cores]",
        ),
        click.option("--verify", is_flag=True, help="Check the hash of every file first."),
        click.option(
            "--huge-pages/--no-huge-pages",
            default=None,
            help="Move the weights onto huge pages (Linux): loading takes longer, decoding is "
            "faster.  [default: on for bench and --prompts, and for chat after its first answer]",
        ),
        click.option(
            "--cuda-graph/--no-cuda-graph",
            default=None,
            help="On CUDA, record the decode step once and replay it.  "
            "[default: on where the folder allows it]",
        ),
        *_ROPE_OPTIONS,
    )
    return gather("machine", options, lambda values: MachineOptions(**values), command)


def chat_inputs(command: Command) -> Command:
    """Add the options of `ChatInputs`, as one argument `inputs`."""
    options = (
        click.option(
            "--tools",
            metavar="FILE",
            type=PATH,
            help="JSON file with a list of tools in OpenAI's format.  In chat also one with "
            "mcpServers, whose tools then run.",
        ),
        click.option(
            "--thinking/--no-thinking",
            default=None,
            help="Set enable_thinking in chat templates that read it.  "
            "[default: the template decides]",
        ),
        click.option(
            "--sanitize/--no-sanitize",
            "is_sanitized",
            default=None,
            help="Read names of control tokens in messages, such as <|user|>, as plain text.  "
            "[default: on for chat; off for generate, whose prompts equal those of transformers]",
        ),
    )
    return gather("inputs", options, lambda values: ChatInputs(**values), command)


def gather(
    argument: str,
    options: Sequence[Decorator],
    build: Callable[[dict[str, Any]], object],
    command: Command,
) -> Command:
    """Add click options whose values reach the command together, as one argument.

    Args:
        argument: the name of that argument.
        options: decorators that `click.option` made.
        build: makes the argument of the values by parameter name.
        command: the function to decorate.
    """

    def empty() -> None:
        """Take no parameters."""

    def add(function: Callable[..., object]) -> Callable[..., object]:
        for option in reversed(options):
            function = option(function)
        return function

    names = [param.name for param in click.command()(add(empty)).params]

    @wraps(command)
    def run(*arguments: object, **values: Any) -> object:
        values[argument] = build({name: values.pop(name) for name in names if name is not None})
        return command(*arguments, **values)

    return cast(Command, add(run))


def show_examples(*examples: str) -> str:
    """Return the end of a help text; the backspace makes click keep the line breaks."""
    return "\n".join(("\b", "Examples:", *(f"  {example}" for example in examples)))


def load_for_command(
    folder: Path, machine: MachineOptions, draft: Path | None = None, *, is_long_lived: bool
) -> Model:
    """Load a folder and say on stderr where it runs.

    Args:
        folder: the exported folder.
        machine: where and how to load it.
        draft: the draft model's folder, which is refused here if it is not an exported folder.
        is_long_lived: whether huge pages are worth their time, if the user does not say.
    """
    if draft is not None:
        read_manifest(find_folder(draft))
    has_huge_pages = is_long_lived if machine.huge_pages is None else machine.huge_pages
    model = load_folder(folder, machine, has_huge_pages=has_huge_pages)
    say(f"running on {model.graph.place}")
    return model


def note_unread_thinking(model: Model, options: ChatOptions | None) -> None:
    """Say that --thinking or --no-thinking changes nothing, if the chat template ignores it."""
    template = model.chat_template
    if options is None or options.enable_thinking is None or template is None:
        return
    if template.reads_thinking:
        return
    option = "--thinking" if options.enable_thinking else "--no-thinking"
    say(f"(the chat template has no switch for reasoning, so {option} changes nothing)")


def suggest_yarn(model: Model, num_tokens: int) -> bool:
    """Say on stderr if the model's card recommends YaRN for a prompt of this length."""
    rope = model.manifest.model.rope
    if rope is None or rope.long_prompt is None or num_tokens <= rope.long_prompt:
        return False
    say(
        f"the prompt has {num_tokens} tokens, and the model's card recommends YaRN above "
        f"{rope.long_prompt}: add --rope-scaling yarn --factor 4"
    )
    return True


def load_draft(folder: Path | None, machine: MachineOptions) -> Model | None:
    """Load the draft model's folder, if the user gave one."""
    return None if folder is None else load_folder(folder, machine)


def load_folder(folder: Path, machine: MachineOptions, *, has_huge_pages: bool = False) -> Model:
    """Load a folder, or a model of the hub, as the machine options say."""
    folder = find_folder(folder)
    with show_progress() as progress:
        return load(
            folder,
            machine.device,
            machine.threads,
            is_verified=machine.verify,
            has_huge_pages=has_huge_pages,
            prepared=PreparedModels.of_user(),
            cuda_graph=machine.cuda_graph,
            rope_scaling=machine.scaling,
            progress=progress,
        )


def read_file(path: Path) -> str:
    """Return the text of a file that the user named.

    Raises:
        PromptError: the file is not UTF-8.
        OSError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors write a byte order mark
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not UTF-8 where UTF-8 text is expected ({error}); convert it first."
        ) from error


def _parse_tools(path: Path) -> Any:
    try:
        return parse_json(read_file(path))
    except ValueError as error:
        raise PromptError(
            f"{path} is not JSON ({error}); write a list of tools in OpenAI's format."
        ) from error


def _names_servers(content: Any) -> bool:
    return isinstance(content, dict) and not content.keys().isdisjoint(("mcpServers", "python"))


def _read_tools(path: Path) -> list[dict[str, object]]:
    content = _parse_tools(path)
    if _names_servers(content):
        raise PromptError(
            f"{path} configures MCP servers, which this command does not start; use `glm-run chat`."
        )
    tools = content if isinstance(content, list) else [content]
    if not all(isinstance(tool, dict) for tool in tools):
        raise PromptError(
            f"{path} holds something that is not a JSON object where tools are expected; write "
            '[{"type": "function", "function": {"name": ..., "parameters": ...}}].'
        )
    return tools
