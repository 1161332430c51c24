"""Rows of files and tables: ids, the order of prefixes, plans, and bad input; without Ray."""

import gzip
import importlib.util
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from glm_runtime.errors import FolderError, PromptError
from glm_runtime.prompt_lines import read_line
from glm_runtime.ray.plan import Plan, make_plan
from glm_runtime.ray.rows import Columns, Row, make_row, read_table_row
from glm_runtime.ray.worker import derive_seed

needs_fsspec = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the package ray"
)


def row_of(content: object, place: str = "in.jsonl:1") -> Row:
    line = read_line("in.jsonl, line 1", 1, json.dumps(content).encode())
    return make_row(line, place, has_place=True)


def plan(rows: list[Row], shard_rows: int = 4) -> Plan:
    return make_plan(rows, shard_rows, lambda *_: None)


def test_ids_are_those_of_the_row_else_its_place() -> None:
    assert row_of({"id": 7, "prompt": "a"}).row_id == "7"
    assert row_of({"id": "x", "custom_id": "y", "prompt": "a"}).row_id == "y"
    assert row_of({"prompt": "a"}).row_id == "in.jsonl:1"


def test_rows_of_common_prefixes_become_neighbours() -> None:
    """Three instructions of 200 characters, mixed, with questions after them."""
    texts = [f"{'abc'[i % 3] * 200} question {i}" for i in range(60)]
    made = plan([row_of({"id": i, "prompt": text}) for i, text in enumerate(texts)])
    kinds = [json.loads(made.read(i).text)["prompt"][0] for i in range(60)]
    assert sum(a != b for a, b in itertools.pairwise(kinds)) == 2


def test_a_plan_does_not_depend_on_the_order_of_the_input() -> None:
    rows = [row_of({"id": i, "prompt": f"p{i % 5} {i}"}) for i in range(20)]
    one, other = plan(rows), plan(rows[::-1])
    assert one.fingerprint == other.fingerprint
    assert [s.name for s in one.list_shards()] == [s.name for s in other.list_shards()]
    assert len({s.name for s in one.list_shards()}) == 5


def test_repeated_ids_are_refused_with_both_places() -> None:
    rows = [
        make_row(
            read_line(f"in.jsonl, line {n}", n, b'{"id": "a", "prompt": "%d"}' % n),
            f"in.jsonl, line {n}",
            has_place=True,
        )
        for n in (3, 8)
    ]
    with pytest.raises(PromptError, match=r"1 rows have an id .* 'a' in in.jsonl, line") as found:
        plan(rows)
    assert "line 3" in str(found.value) and "line 8" in str(found.value)


def test_an_empty_input_is_refused() -> None:
    with pytest.raises(PromptError, match="holds no rows"):
        plan([])


def test_equal_rows_of_a_table_without_ids_are_numbered() -> None:
    rows = [read_table_row({"prompt": "same"}, Columns(), "t.parquet") for _ in range(3)]
    made = plan(rows)
    first = made.read(0).row_id
    assert [made.read(i).row_id for i in range(3)] == [first, f"{first}-2", f"{first}-3"]


def test_a_table_row_keeps_what_has_a_meaning() -> None:
    values = {
        "q": "Why?",
        "doc": 5,
        "temperature": 0.5,
        "seed": None,
        "title": "no part",
        "messages": None,
    }
    row = read_table_row(values, Columns("doc", "q"), "t.parquet")
    assert json.loads(row.text) == {"id": 5, "prompt": "Why?", "temperature": 0.5}
    assert row.row_id == "5" and row.place == "t.parquet, row 5"
    chat = [{"role": "user", "content": "a", "name": None}]
    for given in (chat, json.dumps(chat)):
        row = read_table_row({"messages": given}, Columns(), "t")
        message = json.loads(row.text)["messages"][0]
        assert message["content"] == "a"


def test_seeds_depend_on_the_id_alone() -> None:
    assert derive_seed("a") == derive_seed("a") != derive_seed("b")


@needs_fsspec
def test_files_are_listed_and_lines_read(tmp_path: Path) -> None:
    from glm_runtime.ray.reading import find_files, read_few  # noqa: PLC0415

    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "x"}\r\n\n{"prompt": 7}\n')
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'{"prompt": "y"}\n')
    (tmp_path / "_done.json").write_text("{}")
    found = find_files(str(tmp_path))
    rows = read_few(found, Columns())
    assert rows is not None
    assert [row.place.rsplit("/", 1)[-1] for row in rows] == [
        "a.jsonl.gz, line 1",
        "b.jsonl, line 1",
        "b.jsonl, line 3",
    ]
    assert [bool(row.error) for row in rows] == [False, False, True]


@needs_fsspec
@pytest.mark.parametrize(
    ("names", "pattern", "sentence"),
    [
        ((), "*.jsonl", "no file matches"),
        (("a.jsonl", "b.parquet"), "*", "where files of one of the kinds"),
        (("a.exe",), "*", r"the files of .* end in \.exe"),
    ],
)
def test_wrong_patterns_are_refused(
    tmp_path: Path, names: tuple[str, ...], pattern: str, sentence: str
) -> None:
    from glm_runtime.ray.reading import find_files  # noqa: PLC0415

    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(PromptError, match=sentence):
        find_files(str(tmp_path / pattern))


@needs_fsspec
def test_a_file_whose_name_could_be_a_pattern(tmp_path: Path) -> None:
    from glm_runtime.ray.reading import find_files  # noqa: PLC0415

    given = tmp_path / "in[1].jsonl"
    given.write_text('{"prompt": "x"}\n')
    assert find_files(str(given)).paths == (str(given),)


@needs_fsspec
def test_a_compression_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compressed bytes once became a row with an error."""
    from glm_runtime.ray.reading import find_files  # noqa: PLC0415

    monkeypatch.setattr("fsspec.utils.compressions", {"gz": "gzip"})
    (tmp_path / "a.jsonl.zst").touch()
    with pytest.raises(PromptError, match=r"ends in \.zst, .* install the package zstandard"):
        find_files(str(tmp_path))


@needs_fsspec
@pytest.mark.parametrize("damage", ["cut off", "changed"])
@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], damage: str
) -> None:
    """Changed bytes raise errors of zlib and lzma, which once looked like a fault of ours."""
    from glm_runtime.ray.reading import find_files, read_few  # noqa: PLC0415

    content = compress(b"".join(b'{"prompt": "%d"}\n' % i for i in range(1000)))
    middle = len(content) // 2
    rest = b"" if damage == "cut off" else b"\xff" * (len(content) - middle)
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(content[:middle] + rest)
    with pytest.raises(PromptError, match=rf"a\.jsonl\.{suffix} cannot be read"):
        read_few(find_files(str(tmp_path)), Columns())


@needs_fsspec
def test_errors_of_a_service_are_sentences() -> None:
    """Its library has errors of its own, as botocore and paramiko have: no OSError."""
    import fsspec  # noqa: PLC0415

    from glm_runtime.ray.folders import read_address  # noqa: PLC0415
    from glm_runtime.ray.reading import find_files  # noqa: PLC0415
    from glm_runtime.ray.storage import Storage  # noqa: PLC0415

    class NoCredentialsError(Exception):
        pass

    class Shop(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "shop"

        def _refuse(self, *_: object, **__: object) -> None:
            raise NoCredentialsError("Unable to locate credentials")

        info = ls = _open = makedirs = _refuse

    fsspec.register_implementation("shop", Shop, clobber=True)
    reason = r"\(Unable to locate credentials\)"
    with pytest.raises(PromptError, match=f"the input shop://a/in cannot be listed {reason}"):
        find_files("shop://a/in")
    with pytest.raises(PromptError, match=f"the output shop://a/out cannot be opened {reason}"):
        Storage("shop://a/out")
    with pytest.raises(FolderError, match=rf"json of shop://a/model cannot be copied {reason}"):
        read_address("shop://a/model")
    with pytest.raises(PromptError, match=r"no-such://a cannot be listed \(Protocol not known"):
        find_files("no-such://a")
