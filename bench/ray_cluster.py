"""A real Ray cluster on loopback: nodes as processes, each with an address of its own."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psutil

HERE = Path(__file__).resolve().parents[1]
_QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""A node that is gone is noticed within seconds, and queues are told of each second."""
HEAD = "127.0.0.2"
"""Not 127.0.0.1, for which Ray takes the machine's own address."""
_COMMON = ("--block", "--disable-usage-stats", "--object-store-memory=100000000")


def has_ray() -> bool:
    """Whether this Python has it."""
    return find_spec("ray") is not None


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Node:
    """One node: its processes and its address."""

    host: str
    process: "subprocess.Popen[bytes]"

    def vanish(self) -> None:
        """All its processes are killed at once, as when a machine is switched off."""
        if self.process.poll() is not None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        for each in (*family, self.process):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()
        psutil.wait_procs(family)


@dataclass
class RayCluster:
    """A head and other nodes. Use with `with`."""

    cpus: int = 4
    """That each node says it has."""
    start_within_s: float = 120.0
    """Of a node."""
    nodes: list[Node] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(
            prefix="ray-", dir="/tmp", ignore_cleanup_errors=True
        )
        port = free_port(HEAD)
        self.address = f"{HEAD}:{port}"
        head = ("--head", f"--port={port}", "--include-dashboard=false")
        try:
            self._start(HEAD, *head, f"--temp-dir={self._folder.name}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            node.vanish()
        self._folder.cleanup()

    def add_node(self) -> Node:
        """One more, at the next address of loopback."""
        return self._start(f"127.0.0.{len(self.nodes) + 2}", f"--address={self.address}")

    def remove(self, node: Node) -> None:
        """As when the machine is switched off."""
        self.nodes.remove(node)
        node.vanish()

    def deploy(self, repository: Path, *options: str) -> str:
        """Runs `trivet deploy ray`; returns what it says."""
        command = ["-m", "trivet", "deploy", "ray", str(repository), "--address", self.address]
        return self._python(*command, *options)

    def ask(self, code: str) -> str:
        """What Python code prints that is connected to the cluster."""
        begin = f"import ray; ray.init('{self.address}', log_to_driver=False)\n"
        return self._python("-c", begin + code)

    def wait_for(self, num_nodes: int, within_s: float) -> None:
        """Until so many nodes are alive."""
        ends_at_s = time.monotonic() + within_s
        count = "print(sum(each['Alive'] for each in ray.nodes()))"
        while int(self.ask(count).split()[-1]) != num_nodes:
            if time.monotonic() > ends_at_s:
                raise RuntimeError(f"there are not {num_nodes} nodes")

    def log(self) -> str:
        """The ends of what workers have written."""
        found = sorted(Path(self._folder.name).glob("session_latest/logs/worker-*.err"))
        return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in found)

    def _start(self, host: str, *flags: str) -> Node:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *_COMMON, *flags]
        command += [f"--num-cpus={self.cpus}", f"--node-ip-address={host}"]
        command += [f"--dashboard-agent-listen-port={free_port(host)}"]
        output = Path(self._folder.name) / f"node-{host}"
        with output.open("wb") as written:
            process = subprocess.Popen(
                command, env=_environment(), stdout=written, stderr=subprocess.STDOUT
            )
        node = Node(host, process)
        self.nodes.append(node)
        self._await_start(process, output)
        return node

    def _await_start(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        ends_at_s = time.monotonic() + self.start_within_s
        while "Ray runtime started" not in output.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > ends_at_s:
                raise RuntimeError(f"the node did not start:\n{output.read_text()}")
            time.sleep(0.1)

    def _python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{arguments} failed:\n{done.stdout}{done.stderr}\n{self.log()}")
        return done.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, **_QUICK, "PYTHONPATH": path}
