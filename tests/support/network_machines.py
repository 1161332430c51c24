"""Machines that are network namespaces of this one, with Ray on each. They need root on Linux.

A machine has an address on a bridge, a host name and mounts of its own: it can be cut off, and can
hold other files at the same path. Ray needs four things of it:

- The loopback interface is up, since a machine also reaches its own address through it.
- `--node-ip-address` is given, since Ray otherwise looks for a route to the internet.
- `/tmp/ray` is its own. A driver reads there which node is on its machine, and the machine that was
  started last would be that of all.
- All have one token, or none.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from support.commands import ProgressWatch

HEAD = "10.77.0.1:6379"
_RAY_FOLDER = Path("/tmp/ray")  # where Ray keeps sockets and addresses, if nobody says otherwise
_START = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats")
# A machine that is cut off is noticed after about two seconds instead of a minute.
_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "2",
}
# Without RAY_AUTH_MODE, a head asks for a token if its user has one, and all others send none.
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
_SETUP = 'hostname "$1" && mount --bind "$2" "$3" && shift 3 && exec "$@"'


class NetworkMachine:
    """One machine, with a Ray node in it.

    Attributes:
        name: its host name.
        cache: its user's cache folder.
    """

    def __init__(self, name: str, number: int, space: str, folder: Path) -> None:
        self.name = name
        self.cache = folder / "cache"
        self._space = space
        path = os.pathsep.join(sys.path)
        self._variables = {"XDG_CACHE_HOME": str(self.cache), "PYTHONPATH": path} | _TOKEN
        ray_folder = folder / "ray"
        for path in (self.cache, ray_folder, _RAY_FOLDER):
            path.mkdir(parents=True, exist_ok=True)
        address, _, port = HEAD.partition(":")
        own = address.rpartition(".")[0] + f".{number}"
        place = ["--head", "--port", port, "--include-dashboard=false", "--num-cpus=0"]
        if number > 1:
            place = ["--address", HEAD, "--num-cpus=1"]
        before = ["ip", "netns", "exec", space, "unshare", "--uts", "sh", "-c", _SETUP, "sh", name]
        folders = [str(ray_folder), str(_RAY_FOLDER)]
        self._command = [*before, *folders, *_START, *place, "--node-ip-address", own]
        self._log = folder / "ray.log"
        self._process = self._start()

    def enter(self, command: Sequence[object]) -> list[str]:
        """The command line that runs a command on this machine."""
        words = ["nsenter", "--target", self._process.pid, "--net", "--mount", "--uts", "--"]
        variables = [f"{name}={value}" for name, value in self._variables.items()]
        return [str(word) for word in (*words, "env", *variables, *command)]

    def run(self, *command: object) -> None:
        """Run a short command on this machine."""
        subprocess.run(self.enter(command), check=True)

    def wait(self) -> None:
        """Wait until Ray runs. It gives itself 30 seconds, which a busy machine can exceed."""
        for is_last in (False, False, True):
            watch = ProgressWatch(self._process.pid)
            while self._process.poll() is None:
                if b"Ray runtime started" in self._log.read_bytes():
                    return
                watch.check()
                time.sleep(0.05)
            text = self._log.read_text(encoding="utf-8")
            assert "timed out during startup" in text and not is_last, text
            self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            return subprocess.Popen(
                self._command,
                env=os.environ | _HEALTH_CHECKS | self._variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def close(self) -> None:
        """End all processes of the namespace, and remove it."""
        found = subprocess.run(
            ["ip", "netns", "pids", self._space], capture_output=True, text=True, check=False
        )
        for word in found.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(word), signal.SIGKILL)
        self._process.wait()


class Network:
    """A bridge with machines; the first is Ray's head and has the bridge in its namespace."""

    def __init__(self, folder: Path) -> None:
        """Start the head.

        Raises:
            OSError: there is no program `ip`.
            CalledProcessError: the system allows no namespaces.
        """
        self._folder = folder
        self._prefix = f"glm{os.getpid()}-"
        self._spaces: list[str] = []
        self.machines: list[NetworkMachine] = []
        try:
            self._add_space(1)
            self._ip_in(1, "link add bridge type bridge")
            self._ip_in(1, "addr add 10.77.0.1/24 dev bridge")
            self._ip_in(1, "link set bridge up")
            self.head = self._add_machine("head", 1)
            self.head.wait()
        except BaseException:
            self.close()
            raise

    def add(self, *names: str) -> list[NetworkMachine]:
        """Start machines with one processor each, and wait until the cluster has them."""
        made = [self._add_worker(name) for name in names]
        for machine in made:
            machine.wait()
        return made

    def cut_off(self, machine: NetworkMachine) -> None:
        """Take a machine's cable out."""
        self._ip_in(1, f"link set {self._port(self.machines.index(machine) + 1)} down")

    def close(self) -> None:
        """End all machines."""
        for machine in self.machines:
            machine.close()
        for space in self._spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)

    def _add_space(self, number: int) -> None:
        space = self._space(number)
        subprocess.run(["ip", "netns", "add", space], check=True, capture_output=True)
        self._spaces.append(space)
        self._ip_in(number, "link set lo up")

    def _add_machine(self, name: str, number: int) -> NetworkMachine:
        machine = NetworkMachine(name, number, self._space(number), self._folder / name)
        self.machines.append(machine)
        return machine

    def _add_worker(self, name: str) -> NetworkMachine:
        number = len(self.machines) + 1
        self._add_space(number)
        port, peer = self._port(number), f"name eth0 netns {self._space(number)}"
        self._ip_in(1, f"link add {port} type veth peer {peer}")
        self._ip_in(1, f"link set {port} master bridge up")
        self._ip_in(number, f"addr add 10.77.0.{number}/24 dev eth0")
        self._ip_in(number, "link set eth0 up")
        return self._add_machine(name, number)

    def _space(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _port(self, number: int) -> str:
        return f"port{number}"

    def _ip_in(self, number: int, words: str) -> None:
        command = ["ip", "-netns", self._space(number), *words.split()]
        subprocess.run(command, check=True, capture_output=True)
