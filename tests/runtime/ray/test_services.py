"""Model folder, input and output at addresses, with the real clients of S3 and SFTP.

The server of S3 is moto's, which speaks the protocol over HTTP. That of SFTP is OpenSSH's.
"""

import getpass
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from glm_runtime import Model
from glm_runtime.ray.folders import provide_folder, read_address
from glm_runtime.ray.output import Output
from glm_runtime.ray.plan import Plan, make_plan
from glm_runtime.ray.reading import find_files, read_few
from glm_runtime.ray.rows import Columns
from glm_runtime.ray.storage import Storage
from glm_runtime.ray.worker import Answered
from runtime.ray.conftest import require_ray
from runtime.ray.jobs import answer_alone, make_lines, write_input
from support.commands import ProgressWatch, finish, start_command

_SIZES = ("--greedy", "--max-new-tokens", 24, "--rows", 4, "--shard-rows", 16, "--no-huge-pages")
_SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/home/.ssh/id_ed25519.pub
PidFile none
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Service:
    """A running server.

    Attributes:
        address: address of an empty folder.
        storage: fsspec's client of it.
        variables: environment of programs that use it.
        forbidden: environment of programs that may not.
        reason: what their error says.
    """

    address: str
    storage: Any
    variables: Mapping[str, str]
    forbidden: Mapping[str, str] = field(repr=False)
    reason: str

    @property
    def root(self) -> str:
        """The folder as the client names it."""
        return str(self.storage._strip_protocol(self.address))


def require_packages(*names: str) -> None:
    require_ray()
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs the package {name}")


@pytest.fixture(scope="module")
def s3() -> Iterator[Service]:
    require_packages("s3fs", "moto", "flask")
    import s3fs  # noqa: PLC0415
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        place = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        rights = {"AWS_ACCESS_KEY_ID": "some", "AWS_SECRET_ACCESS_KEY": "secret"}
        keys = {"key": "some", "secret": "secret"}
        client = s3fs.S3FileSystem(endpoint_url=place["AWS_ENDPOINT_URL"], **keys)
        client.mkdir("bucket")
        yield Service("s3://bucket/place", client, place | rights, place, "credentials")
    finally:
        server.stop()


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    require_packages("paramiko")
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
    if program is None:
        pytest.skip("needs openssh-server")
    import fsspec  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("sftp")
    key = folder / "home" / ".ssh" / "id_ed25519"
    key.parent.mkdir(parents=True)
    (folder / "empty").mkdir()
    for path in (folder / "host_key", key):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
        subprocess.run(command, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(_SSHD.format(port=port, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([program, "-D", "-f", str(folder / "config")])
    try:
        wait_for_port(process, port)
        user = getpass.getuser()
        client = fsspec.filesystem(
            "sftp", host="127.0.0.1", port=port, username=user, key_filename=str(key)
        )
        address = f"sftp://{user}@127.0.0.1:{port}{folder}/place"
        homes = [{"HOME": str(folder / name)} for name in ("home", "empty")]
        yield Service(address, client, *homes, "No authentication methods available")
    finally:
        process.kill()
        process.wait()


def wait_for_port(process: subprocess.Popen[Any], port: int) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail("sshd has ended")


def upload(service: Service, folder: str, paths: Iterable[Path]) -> None:
    service.storage.makedirs(f"{service.root}/{folder}", exist_ok=True)
    for path in paths:
        service.storage.put_file(str(path), f"{service.root}/{folder}/{path.name}")


@pytest.mark.parametrize("name", ["s3", "sftp"])
def test_folder_input_and_output_at_an_address(
    name: str,
    tiny_folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What driver and workers do there, without Ray: a driver that ends, and the next one."""
    service: Service = request.getfixturevalue(name)
    for key, value in service.variables.items():
        monkeypatch.setenv(key, value)
    given = write_input(tmp_path / "a.jsonl", make_lines(20))
    upload(service, "few", [given])
    upload(service, "copied", tiny_folder.iterdir())
    wanted, _ = read_address(f"{service.address}/copied")
    found = provide_folder(wanted, tmp_path / "cache")
    for path in tiny_folder.iterdir():
        assert (found / path.name).read_bytes() == path.read_bytes()
    rows = read_few(find_files(f"{service.address}/few/*.jsonl"), Columns())
    assert rows is not None
    assert sorted(row.row_id for row in rows) == sorted(f"q{i}" for i in range(20))

    plan = make_plan(rows, 8, lambda *_: None)
    storage, job = Storage(f"{service.address}/written"), {"input": "x"}
    first = Output(storage, plan, job, "jsonl")
    first.add([answer(plan, position) for position in range(12)])
    first.close()
    second = Output(Storage(storage.address), plan, job, "jsonl")
    assert list(second.list_missing()) == list(range(12, 20))
    second.add([answer(plan, position) for position in range(12, 20)])
    second.close()
    second.finish({})
    names = storage.list_names()
    assert [one[:5] for one in names] == ["_done", "_job.", "part-", "part-", "part-"]
    shards = [storage.read(one).splitlines() for one in names[2:]]
    ids = [json.loads(line)["row_id"] for lines in shards for line in lines]
    assert ids == [plan.read(position).row_id for position in range(20)]


def answer(plan: Plan, position: int) -> Answered:
    line = json.dumps({"row_id": plan.read(position).row_id, "text": "明"})
    return Answered(position, line, 1, is_failed=False)


@pytest.mark.exhaustive
def test_a_job_at_addresses_whose_driver_is_killed(
    s3: Service,
    tiny_folder: Path,
    tiny_model: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prompts, model and answers at one address; and programs that may not use it."""
    service, lines = s3, make_lines(120)
    for index in range(2):
        write_input(tmp_path / f"{index}.jsonl", lines[60 * index : 60 * index + 60])
    upload(service, "in", tmp_path.glob("*.jsonl"))
    upload(service, "model", tiny_folder.iterdir())
    output = f"{service.root}/out"

    def list_names() -> list[str]:
        service.storage.invalidate_cache()
        if not service.storage.exists(output):
            return []
        return [one.rpartition("/")[2] for one in service.storage.ls(output, detail=False)]

    def begin() -> subprocess.Popen[str]:
        places = [f"{service.address}/{one}" for one in ("model", "in/*.jsonl", "out")]
        options = ("--input", places[1], "--output", places[2], "--workers", 1, "--json")
        return start_command("glm-run", "batch", places[0], *options, *_SIZES)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for key, value in service.variables.items():
        monkeypatch.setenv(key, value)
    driver = begin()
    watch = ProgressWatch(driver.pid)
    while not any(one.startswith("part-") for one in list_names()):
        assert driver.poll() is None, driver.communicate()
        watch.check()
        time.sleep(0.05)
    driver.kill()
    driver.communicate()
    code, out, err = finish(begin())
    assert code == 0, err
    assert 0 < json.loads(out)["answered"] < 120
    names = list_names()
    assert "_done.json" in names and not [one for one in names if one.startswith("_journal")]
    shards = [one for one in names if one.startswith("part-")]
    rows = [
        json.loads(line)
        for one in shards
        for line in service.storage.cat_file(f"{output}/{one}").splitlines()
    ]
    assert len(rows) == 120
    assert {row["row_id"]: row["token_ids"] for row in rows} == answer_alone(tiny_model, lines)

    for key in service.variables:
        monkeypatch.delenv(key)
    for key, value in service.forbidden.items():
        monkeypatch.setenv(key, value)
    code, _, err = finish(begin())
    assert code == 1 and "Traceback" not in err
    assert "cannot be copied" in err and service.reason in err
