"""The peers' virtual environments, since their requirements do not go with ours."""

import venv
from pathlib import Path

from benchmarks.command import say
from benchmarks.processes import run_child

_HERE = Path(__file__).parent
REQUIREMENTS = {
    name: _HERE / f"{name}-requirements.txt" for name in ("gguf", "llama-cpp", "mobius", "openvino")
}


def provide_python(work: Path, name: str) -> Path:
    """Install a peer into `work`, unless the same versions are there, and give its Python.

    Raises:
        ChildError: pip failed.
    """
    folder = work / f"{name}-venv"
    python, stamp = folder / "bin/python", folder / "installed.txt"
    wanted = REQUIREMENTS[name].read_text(encoding="utf-8")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    say(f"installing {name} into an environment of its own: minutes")
    venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip"]
    run_child([*pip, "install", "--quiet", "-r", str(REQUIREMENTS[name])])
    # Some builds of torchvision do not go with a CPU build of torch; nothing here needs it.
    run_child([*pip, "uninstall", "--quiet", "--yes", "torchvision"])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def read_versions(name: str) -> list[str]:
    """Packages of a peer's environment, as name==version."""
    lines = REQUIREMENTS[name].read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines]
