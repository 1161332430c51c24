"""Build the fuzzers with Clang and run each for some seconds, starting from valid files.

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

from tokenizers import Tokenizer, decoders, models, normalizers  # noqa: E402

from glm_export import ExportOptions, export  # noqa: E402
from support.cpp_build import build, find_fuzzing_clang  # noqa: E402

_KEPT = 300  # tokens in the mutated tokenizer.json; a small file is mutated faster
_FLAGS = ("-rss_limit_mb=2048", "-timeout=10", "-max_len=8192")
_CALLS = (  # the first byte of the input selects the dialect; see fuzz_calls.cpp
    'So:\nget\n```json\n{"a": [1, "\\u8bd7"]}\n```',
    "<tool_call>get\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
    '{"name": "get", "arguments": {"a": null}}',
    "get\n```python\ntool_call(a='\\x41\\101', b=[1, {'k': None}], c=-1.5e3)\n```",
    "python\nprint(1)\ufdd2simple_browser\nsearch('a', recency_days=7)\ufdd2cogview\nA cat.",
    '{"a": "it\'s", "b": [true, {"k": 1}], "c": null}',
)
# The first byte of the input selects the file; see fuzz_manifest.cpp.
_JSON_FILES = ("glm_manifest.json", "generation_config.json", "chat_table.json")


def shrink_tokenizer(text: str) -> str:
    """Keep only the first tokens."""
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


def build_sentencepiece() -> str:
    """Build a small tokenizer.json like those that the exporter converts."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("床", "前")]
    names = [*bytes_, *"▁the床前", *("".join(pair) for pair in merges)]
    vocabulary = {name: place for place, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<0x00>", byte_fallback=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    replace, strip = decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence(
        [replace, decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    tokenizer.add_special_tokens(["<|user|>"])
    return str(tokenizer.to_str())


def write_examples(folder: Path, corpus: Path) -> None:
    """Write a folder of first inputs for each fuzzer."""
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    jsons = [chr(i) + (folder / name).read_text("utf-8") for i, name in enumerate(_JSON_FILES)]
    examples: Mapping[str, list[str]] = {
        "tokenizer": [shrink_tokenizer(tokenizer), build_sentencepiece()],
        "manifest": jsons,
        "calls": [chr(place % 5) + text for place, text in enumerate(_CALLS)],
        "prompt": ["<|user|>\n床前 In the 'll 123 👩‍🚀\r\n  x"],
    }
    for name, texts in examples.items():
        (corpus / name).mkdir(parents=True)
        for place, text in enumerate(texts):
            (corpus / name / str(place)).write_text(text, encoding="utf-8")


def run_fuzzer(program: Path, corpus: Path, seconds: int, tokenizer: Path) -> None:
    """Run one fuzzer. Raises an error at a finding; its input is in the current folder."""
    command = [program, corpus, f"-max_total_time={seconds}", *_FLAGS]
    variables = {**os.environ, "GLM_FUZZ_TOKENIZER": str(tokenizer)}
    print(f"{program.name} with {tokenizer.name}", file=sys.stderr)
    subprocess.run(command, env=variables, check=True)


def main(checkpoint: Path, seconds: int) -> None:
    """Run all fuzzers, one after the other, up to the first finding."""
    clang = find_fuzzing_clang()
    if clang is None:
        sys.exit("no clang++ with libFuzzer was found; install clang and its runtime libraries.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "int4"
        export(ExportOptions(checkpoint, folder, method="rtn", verify="none"))
        write_examples(folder, Path(scratch) / "corpus")
        built = build(
            Path(scratch) / "build", f"-DCMAKE_CXX_COMPILER={clang}", "-DGLM_FUZZ=ON", target="fuzz"
        )
        byte_level = folder / "tokenizer.json"
        sentencepiece = Path(scratch) / "sentencepiece.json"
        sentencepiece.write_text(build_sentencepiece(), encoding="utf-8")
        for name in ("tokenizer", "manifest", "calls", "prompt"):
            corpus = Path(scratch) / "corpus" / name
            run_fuzzer(built / f"fuzz_{name}", corpus, seconds, byte_level)
        run_fuzzer(built / "fuzz_prompt", corpus, seconds, sentencepiece)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
