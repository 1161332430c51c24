"""Downloads the public texts and reads them as documents; knows nothing of splits or tokens.

English: the King James Bible of Debian's `bible-kjv-text`, unpacked by Debian's `bible` program.
Chinese: the npm package `chinese-poetry`, written in simplified characters by OpenCC's tables.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sample.settings import WORK, Settings

_DIST = WORK / "package" / "dist"
_NOTE = re.compile(r"[（(][^）)]*[)）]|[\[［{].*?[\]］}]")
_BROKEN = re.compile(r"[□○●◎?？]{2}|□|[\u2ff0-\u2fff]|[\ue000-\uf8ff]|[a-zA-Z0-9/]")
_PROSE = [
    "lunyu/lunyu.json",
    "sishuwujing/*.json",
    "mengxue/guwenguanzhi.json",
    "mengxue/youxueqionglin.json",
    "mengxue/sanzijing-new.json",
    "mengxue/qianziwen.json",
    "mengxue/zengguangxianwen.json",
    "mengxue/shenglvqimeng.json",
    "mengxue/zhuzijiaxun.json",
    "mengxue/dizigui.json",
]


@dataclass(frozen=True)
class Document:
    """One chapter, poem or essay: what the model reads between two document marks."""

    collection: str
    title: str
    author: str
    lines: list[str]

    @property
    def text(self) -> str:
        """Title, author where there is one, an empty line, then the text."""
        head = [self.title, self.author] if self.author else [self.title]
        return "\n".join([*head, "", *self.lines]) + "\n"


def download(settings: Settings) -> None:
    """Fetch the packages into the work folder, once."""
    if (WORK / "opencc").exists():
        return
    WORK.mkdir(exist_ok=True)
    _run(["apt-get", "download", *settings.bible_packages])
    for archive in WORK.glob("bible-kjv*.deb"):
        _run(["dpkg", "-x", archive.name, "bible"])
    _run(["npm", "pack", "--silent", settings.poetry_package])
    _run(["tar", "-xzf", next(WORK.glob("chinese-poetry-*.tgz")).name])
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", "opencc"]
    _run([*pip, settings.conversion_package])


def _run(command: list[str]) -> None:
    subprocess.run(command, cwd=WORK, check=True, stdout=subprocess.DEVNULL)


def read_bible() -> list[Document]:
    """Return the 1,189 chapters; every line is a verse that starts with its number."""
    data = WORK / "bible" / "usr"
    command = [str(data / "bin" / "bible"), "-l9999", "-p", str(data / "lib"), "Gen1:1-Rev22:21"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    chapters: list[Document] = []
    for line in filter(None, (line.strip() for line in output.splitlines())):
        if line[0].isdigit() and not re.fullmatch(r"[123] [A-Z][A-Za-z]+ \d+", line):
            chapters[-1].lines.append(line)
        else:
            chapters.append(Document("bible", line, "", []))
    return chapters


def read_chinese(settings: Settings) -> list[Document]:
    """Return poems and prose, best known collections first, in simplified characters."""
    sys.path.insert(0, str(WORK / "opencc"))
    from opencc import OpenCC  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    convert = OpenCC("t2s").convert
    found = [clean for raw in _raw_documents(settings) if (clean := _clean(raw))]
    simple = convert("\x00".join("\x01".join([d.title, d.author, *d.lines]) for d in found))
    fields = [entry.split("\x01") for entry in simple.split("\x00")]
    return [Document(d.collection, f[0], f[1], f[2:]) for d, f in zip(found, fields, strict=True)]


def _raw_documents(settings: Settings) -> Iterator[Document]:
    yield from _walk(_load("mengxue/tangshisanbaishou.json"), "tang300", "", "")
    yield from _walk(_load("songci/宋词三百首.json"), "song300", "", "")
    yield from _walk(_load("shijing/shijing.json"), "shijing", "", "")
    yield from _walk(_load("chuci/chuci.json"), "chuci", "", "")
    for pattern in _PROSE:
        for path in sorted(_DIST.glob(pattern)):
            yield from _walk(json.loads(path.read_text(encoding="utf-8")), "prose", "", "")
    for name in ("mengxue/qianjiashi.json", "caocaoshiji/caocao.json"):
        yield from _walk(_load(name), "poems", "", "")
    yield from _walk(_load("nalanxingde/纳兰性德诗集.json"), "poems", "", "")
    yield from _best_ranked("quantangshi/poet.tang.{}.json", "poet", settings.tang_poems, "tang")
    yield from _best_ranked("songci/ci.song.{}.json", "ci", settings.song_lyrics, "song")
    yield from _best_ranked("quantangshi/poet.song.{}.json", "poet", settings.song_poems, "poems")


def _load(name: str) -> Any:
    return json.loads((_DIST / name).read_text(encoding="utf-8"))


def _best_ranked(pattern: str, folder: str, count: int, collection: str) -> Iterator[Document]:
    """Yield the `count` poems that the package's search-engine ranks call best known."""
    ranked: list[tuple[int, str, int, Any]] = []
    prefix = Path(pattern).name.split("{")[0]
    for path in sorted((_DIST / "rank" / folder).glob(f"{prefix}rank.*.json")):
        part = path.name.split(".")[-2]
        poems = _load(pattern.format(part))
        ranks = json.loads(path.read_text(encoding="utf-8"))
        for index, (poem, rank) in enumerate(zip(poems, ranks, strict=False)):
            ranked.append((-int(rank["baidu"]), part, index, poem))
    for _, _, _, poem in sorted(ranked, key=lambda entry: entry[:3])[:count]:
        yield from _walk(poem, collection, "", "")


def _walk(node: Any, collection: str, title: str, author: str) -> Iterator[Document]:
    """Find every list of text lines, however deep; titles and authors are inherited."""
    if isinstance(node, list):
        for child in node:
            yield from _walk(child, collection, title, author)
    if not isinstance(node, dict):
        return
    title = node.get("title") or node.get("chapter") or node.get("rhythmic") or title
    author = node.get("author") or author
    lines = node.get("paragraphs") or node.get("content") or node.get("para") or []
    if lines and all(isinstance(line, str) for line in lines) and isinstance(lines, list):
        yield Document(collection, title, author, lines)
    elif isinstance(lines, list):
        yield from _walk(lines, collection, title, author)


def _clean(raw: Document) -> Document | None:
    """Drop editors' notes; drop whole documents with missing characters or Latin letters."""
    lines = [text for line in raw.lines if (text := _NOTE.sub("", line).strip())]
    title = _NOTE.sub("", raw.title).strip()
    author = _NOTE.sub("", raw.author).split("：")[-1].split("/")[0].strip()
    if not lines or _BROKEN.search(title + "".join(lines)):
        return None
    return Document(raw.collection, title, author if author != "佚名" else "", lines)
