"""One `trivet serve` as a process of a replica's, on addresses of its own."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from trivet.backends.process import bond
from trivet.server.ray.group import Group
from trivet.server.ray.scaling import ACTIVE, WAITING

_TIMEOUT_S = 3.0
_QUEUES = ("nv_inference_pending_request_count", "vllm:num_requests_waiting")
_RUNNING = "vllm:num_requests_running"
_ANSWERED = ("nv_inference_request_success", "nv_inference_request_failure")
_KEY = "TRIVET_API_KEY"
"""The variable with a key of the scope `metrics`, where servers ask for keys."""


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do, by the server's own page."""

    waiting: float
    running: float
    answered: float

    @classmethod
    def of(cls, page: str) -> "Load":
        """Sums over all models."""
        return cls(_sum(page, _QUEUES), _sum(page, (_RUNNING,)), _sum(page, _ANSWERED))


class ServerProcess:
    """Owned by the thread that made it, with which it ends."""

    def __init__(self, group: Group, host: str) -> None:
        self.host = host
        self.http_port, self.grpc_port, self._metrics_port = _free_ports(host, 3)
        self._before = Load(0, 0, 0)
        flags = (
            *(f"--{room}-address={host}" for room in ("http", "grpc", "metrics")),
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self._metrics_port}",
            f"--drain-delay-secs={group.drain_delay_s:g}",
            f"--exit-timeout-secs={group.longest_request_s:g}",
            "--no-progress",
        )
        command = [sys.executable, bond.__file__, str(os.getpid()), sys.executable]
        command += ["-m", "trivet", "serve", *group.repository, *flags, *group.flags]
        self._process = subprocess.Popen(command)  # noqa: S603 - our own program

    @property
    def pid(self) -> int:
        """Of the server."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None: it runs."""
        return self._process.poll()

    def is_ready(self) -> bool:
        """Whether all its models serve."""
        return self._get(self.http_port, "/v2/health/ready")[0] == 200

    def is_live(self) -> bool:
        """Whether it answers at all."""
        return self._get(self.http_port, "/v2/health/live")[0] == 200

    def load(self) -> dict[str, float]:
        """What `scaling` decides by; nothing where the page cannot be read."""
        status, page = self._get(self._metrics_port, "/metrics")
        if status != 200:
            return {}
        now, before = Load.of(page), self._before
        self._before = now
        is_active = now.waiting or now.running or now.answered != before.answered
        return {WAITING: now.waiting, ACTIVE: float(bool(is_active))}

    def stop(self, within_s: float) -> None:
        """Has it drain, and waits for its end; then, or where it takes too long, it is killed."""
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _get(self, port: int, path: str) -> tuple[int, str]:
        """Status and text; (0, "") without an answer."""
        connection = http.client.HTTPConnection(self.host, port, timeout=_TIMEOUT_S)
        key = os.environ.get(_KEY, "")
        try:
            connection.request(
                "GET", path, headers={"Authorization": f"Bearer {key}"} if key else {}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()


def _sum(page: str, names: tuple[str, ...]) -> float:
    heads = tuple(f"{name}{{" for name in names) + tuple(f"{name} " for name in names)
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(heads)
    )


def _free_ports(host: str, count: int) -> list[int]:
    probes = [
        socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) for _ in range(count)
    ]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
