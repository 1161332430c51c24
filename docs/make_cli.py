"""Write docs/cli.md: the help text of every command, as the programs print it.

python docs/make_cli.py

`tests/test_readme.py` fails if the page is not current.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from glm_export import cli as export_cli
from glm_export import evaluate_cli
from glm_runtime.cli import cli as run_cli

PAGE = Path(__file__).parent / "cli.md"
_COMMANDS = {"glm-export": export_cli.command, "glm-eval": evaluate_cli.command, "glm-run": run_cli}
_WIDTH = 90
_HEAD = """# Command line

Results go to stdout; progress and messages go to stderr. With `--json` the result is one JSON
object. The exit code is 0 for success, 1 for a failure, 2 for wrong usage and 130 after Ctrl-C.

This page is generated from the programs by `python docs/make_cli.py`.

## Shell completion

The Tab key completes commands, options and values after these lines, which belong into
`~/.bashrc`:

```sh
eval "$(_GLM_EXPORT_COMPLETE=bash_source glm-export)"
eval "$(_GLM_EVAL_COMPLETE=bash_source glm-eval)"
eval "$(_GLM_RUN_COMPLETE=bash_source glm-run)"
```

For zsh write `zsh_source` in place of `bash_source`, into `~/.zshrc`. For fish write lines such as
`_GLM_RUN_COMPLETE=fish_source glm-run | source` into `~/.config/fish/config.fish`.
"""


def render() -> str:
    """Return the whole page."""
    sections = [
        f"## {path}\n\n```text\n{text.strip()}\n```\n"
        for name, command in _COMMANDS.items()
        for path, text in _list_helps(command, name)
    ]
    return "\n".join([_HEAD, *sections])


def _list_helps(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    width: dict[str, int] = {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    context = click.Context(
        command, parent, info_name=name, **{**command.context_settings, **width}
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child, subcommand in sorted(command.commands.items()):
            yield from _list_helps(subcommand, child, context)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
