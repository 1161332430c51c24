"""Builds everything that a release has: `make release`.

Parts: `python` (wheels and source archive), `npm` (the packages for Node and the web, and the chat
page), `cpp` (glm-run and libglm for three systems, with ONNX Runtime), `sample` (the sample
checkpoint, exported). A part deletes the files of its last build. The bill of materials needs
`python`; SHA256SUMS comes last and names every file of the current version. Dates in archives are
the commit's, or SOURCE_DATE_EPOCH, so that building a commit twice gives the same bytes.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from archive import write_zip
from glm_run import TARGETS, build_target, copy_licenses
from sbom import write_bill
from version import PLACES, read_version

ROOT = Path(__file__).parents[1]
VERSION = read_version(*PLACES[0])
SUMS = "SHA256SUMS"
# What the page with a model in the browser holds, besides onnxruntime-web.
PAGE_PACKAGES = (
    "@huggingface/jinja",
    "@huggingface/tokenizers",
    "@noble/hashes",
    "dompurify",
    "idb",
    "marked",
)
LICENSE = ROOT / "LICENSE"


def build_python(output: Path, _scratch: Path, _epoch: int) -> None:
    """The source archive, the wheel built from it, the Optimum plugin's wheel, and the bill.

    The archive holds the page of `glm-run serve` as it is built here, so that pip needs no npm.
    """
    web = ROOT / "runtime" / "web"
    install = ("npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund")
    _run(*install, "--silent", "--prefix", web)
    _run("npm", "run", "--silent", "build:server", "--prefix", web)
    build = [sys.executable, "-m", "build", "--outdir", output]
    _run(*build, ROOT)
    _run(*build, "--wheel", ROOT / "export" / "optimum_plugin")
    (wheel,) = output.glob(f"glm_export-{VERSION}-*.whl")
    write_bill(wheel, output / f"glm-export-{VERSION}.cdx.json")


def build_npm(output: Path, scratch: Path, epoch: int) -> None:
    """Both npm packages, and the page with its licenses."""
    for host in ("node", "web"):
        _run("npm", "pack", "--silent", "--pack-destination", output, f"./runtime/{host}")
    page = scratch / f"glm-web-page-{VERSION}"
    web = ROOT / "runtime" / "web"
    shutil.copytree(web / "dist", page)
    shutil.copyfile(LICENSE, page / "LICENSE")
    licenses = page / "licenses"
    for name in PAGE_PACKAGES:
        (licenses / name).mkdir(parents=True)
        shutil.copyfile(web / "node_modules" / name / "LICENSE", licenses / name / "LICENSE")
    copy_licenses(licenses / "onnxruntime")  # onnxruntime-web brings none
    write_zip(output / f"{page.name}.zip", page, epoch)


def build_cpp(output: Path, scratch: Path, epoch: int) -> None:
    """glm-run and libglm, installed by CMake, for each system."""
    for target in TARGETS:
        folder = scratch / f"glm-run-{VERSION}-{target.name}"
        build_target(target, VERSION, folder, scratch)
        write_zip(output / f"{folder.name}.zip", folder, epoch)


def build_sample(output: Path, scratch: Path, epoch: int) -> None:
    """The folder that `make demo` makes, with the vectors that hosts are held to."""
    folder = scratch / "glm4-sample-int4"
    command = [sys.executable, "-m", "glm_export", ROOT / "artifacts" / "glm4-sample"]
    _run(*command, "--quant", "int4", "--conformance", "-o", folder)
    write_zip(output / f"{folder.name}-{VERSION}.zip", folder, epoch)


PARTS: dict[str, Callable[[Path, Path, int], None]] = {
    "python": build_python,
    "npm": build_npm,
    "cpp": build_cpp,
    "sample": build_sample,
}
# Which files each part makes, of any version.
FILES = {
    "python": ("glm_export*", "glm-export-*"),
    "npm": ("glm-runtime-*", "glm-web-page-*"),
    "cpp": ("glm-run-*",),
    "sample": ("glm4-sample-*",),
}


def main() -> None:
    """Parse the arguments and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="All without this.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="Folder to fill.")
    chosen = parser.parse_args()
    output = chosen.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    epoch = int(os.environ.setdefault("SOURCE_DATE_EPOCH", _read_date_of_commit()))
    os.environ["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    with tempfile.TemporaryDirectory() as scratch:
        for part in chosen.parts or PARTS:
            print(f"Building: {part}", file=sys.stderr, flush=True)
            for old in [path for pattern in FILES[part] for path in output.glob(pattern)]:
                old.unlink()
            PARTS[part](output, Path(scratch), epoch)
    files = sorted(output.glob(f"glm*-{VERSION}[-.]*"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (output / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
    for path in files:
        print(f"{path.stat().st_size:>12,}  {path.name}")


def _read_date_of_commit() -> str:
    return _run("git", "log", "-1", "--format=%ct").strip()


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words[:4])} failed; its output is above.\n{done.stdout[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
