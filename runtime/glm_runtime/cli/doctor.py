"""`glm-run doctor` examines this machine and the integrity and size of a folder."""

import dataclasses
import json
from pathlib import Path

import click

from glm_runtime.cli.failure import debug_option
from glm_runtime.cli.hub import FolderPath, find_folder
from glm_runtime.cli.options import json_option, show_examples
from glm_runtime.cli.progress import quiet_option, show_progress
from glm_runtime.cli.terminal import format_bytes
from glm_runtime.errors import to_printable
from glm_runtime.folder.manifest import require_folder
from glm_runtime.health import FolderReport, MachineReport, examine_folder, examine_machine


@click.command(
    epilog=show_examples(
        "glm-run doctor",
        "glm-run doctor artifacts/glm4-int4",
        "glm-run doctor artifacts/glm4-int4 --json",
    )
)
@click.argument("folder", metavar="[DIR]", type=FolderPath(), required=False)
@json_option
@quiet_option
@debug_option
@click.pass_context
def doctor(ctx: click.Context, folder: Path | None, is_json: bool) -> None:
    """Examine this machine and, if given, every byte of a folder.

    The exit code is 1 if there is a problem.
    """
    if folder is not None:
        folder = find_folder(folder)
        require_folder(folder)
    machine = examine_machine()
    report = None
    if folder is not None:
        with show_progress() as progress:
            report = examine_folder(folder, machine.memory_available_bytes, progress)
    problems = machine.problems + (report.problems if report else ())
    if is_json:
        content: dict[str, object] = {"machine": dataclasses.asdict(machine)}
        content["folder"] = dataclasses.asdict(report) if report else None
        click.echo(json.dumps(content | {"is_healthy": not problems}, ensure_ascii=False))
    else:
        click.echo("\n".join(_describe_machine(machine)))
        if report:
            click.echo("\n".join(map(to_printable, _describe_folder(report))))
    for problem in problems:
        click.echo(f"Error: {to_printable(problem)}", err=True)
    ctx.exit(1 if problems else 0)


def _describe_machine(machine: MachineReport) -> list[str]:
    packages = ", ".join(machine.onnxruntime_packages) or "not a pip package"
    version = machine.onnxruntime_version
    return [
        f"onnxruntime   {f'{version} ({packages})' if version else 'missing'}",
        f"providers     {', '.join(machine.providers) or 'none'}",
        f"cpu           {machine.cpu}, {machine.physical_cores} physical cores to use",
        f"features      {', '.join(machine.cpu_features) or 'unknown'}",
        f"memory        {format_bytes(machine.memory_available_bytes)} available of "
        f"{format_bytes(machine.memory_total_bytes)}",
        f"python        {machine.python_version}",
    ]


def _describe_folder(report: FolderReport) -> list[str]:
    if report.format_version is None:
        return ["folder        cannot be read"]
    lines = [f"format        version {report.format_version}"]
    lines += [f"file          {problem}" for problem in report.file_problems]
    if not report.file_problems:
        lines.append("files         all as the manifest says")
    lines.append(
        f"will take     {format_bytes(report.weight_bytes)} of weights, "
        f"{format_bytes(report.cache_bytes)} of cache at {report.context_length} tokens"
    )
    lines.append(f"will fit      {_describe_fit(report)}")
    lines.append(f"chat          {report.chat}")
    return lines


def _describe_fit(report: FolderReport) -> str:
    if report.fitting_context_length == report.context_length:
        return "yes, with the whole context"
    if report.fitting_context_length > 0:
        return f"yes, up to {report.fitting_context_length} tokens of context"
    return "no"
