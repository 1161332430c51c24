"""Build the fuzzers with clang and run each for a while, from what a checkpoint's files look like.

python runtime/cpp/fuzz/run.py CHECKPOINT SECONDS
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / name) for name in ("tests", "export", "quantize", "runtime")]

from glm_export import ExportOptions, export  # noqa: E402
from support.cpp_build import build  # noqa: E402

_KEPT = 300  # tokens of the tokenizer.json that is mutated; a small one is tried more often
_FLAGS = ("-rss_limit_mb=2048", "-timeout=10", "-max_len=8192")
# The first byte says which; see fuzz_manifest.cpp.
_JSON_FILES = ("glm_manifest.json", "generation_config.json", "chat_table.json")


def shrink_tokenizer(text: str) -> str:
    """The same with its first tokens only."""
    content = json.loads(text)
    model = content["model"]
    names = sorted(model["vocab"], key=model["vocab"].get)[:_KEPT]
    model["vocab"] = {name: place for place, name in enumerate(names)}
    known = set(names)
    merges = [(left, right) for left, right in model["merges"]]
    model["merges"] = [pair for pair in merges if known.issuperset((*pair, "".join(pair)))]
    for place, token in enumerate(content["added_tokens"]):
        token["id"] = _KEPT + place
    return json.dumps(content, ensure_ascii=False)


def write_examples(folder: Path, corpus: Path) -> None:
    """A folder of first inputs for each fuzzer."""
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    jsons = [chr(i) + (folder / name).read_text("utf-8") for i, name in enumerate(_JSON_FILES)]
    examples: Mapping[str, list[str]] = {
        "tokenizer": [shrink_tokenizer(tokenizer)],
        "manifest": jsons,
        "prompt": ["<|user|>\n床前 In the 'll 123 👩‍🚀\r\n  x"],
    }
    for name, texts in examples.items():
        (corpus / name).mkdir(parents=True)
        for place, text in enumerate(texts):
            (corpus / name / str(place)).write_text(text, encoding="utf-8")


def main(checkpoint: Path, seconds: int) -> None:
    """Run all of them, one after the other; stops at the first finding."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "int4"
        export(ExportOptions(checkpoint, folder, method="rtn", verify="none"))
        write_examples(folder, Path(scratch) / "corpus")
        options = ("-DCMAKE_CXX_COMPILER=clang++", "-DGLM_FUZZ=ON")
        built = build(Path(scratch) / "build", *options)
        variables = {**os.environ, "GLM_FUZZ_TOKENIZER": str(folder / "tokenizer.json")}
        for name in ("tokenizer", "manifest", "prompt"):
            corpus = Path(scratch) / "corpus" / name
            command = [built / f"fuzz_{name}", corpus, f"-max_total_time={seconds}", *_FLAGS]
            subprocess.run(command, env=variables, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
