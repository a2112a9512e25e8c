"""A client whose machine is cut off says nothing more: its request and its connection are freed."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from http_site import FakeCore
from patience import patience

from trivet.backends.api import CheckedRequest, Sink
from trivet.server import sockets
from trivet.server.core import Core
from trivet.server.http.app import HttpLimits, HttpServer

NAME = f"trivet{os.getpid()}"
HERE, THERE = "10.211.7.1", "10.211.7.2"
CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
connection.sendall(sys.argv[3].encode().decode("unicode_escape").encode())
sys.stdin.read()
"""
BODY = '{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1]}]}'
WORKING = (
    f"POST /v2/models/ident/infer HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: {len(BODY)}"
    f"\\r\\n\\r\\n{BODY}"
)
IDLE = "GET /v2/health/live HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def cut() -> Iterator[Callable[[], None]]:
    """A network namespace with one cable to ours; call it to cut the cable."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2 (apt-get install iproute2)")
    try:
        ip("netns", "add", NAME)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
    try:
        ip("link", "add", NAME, "type", "veth", "peer", "name", "eth0", "netns", NAME)
        ip("addr", "add", f"{HERE}/30", "dev", NAME)
        ip("link", "set", NAME, "up")
        ip("-n", NAME, "addr", "add", f"{THERE}/30", "dev", "eth0")
        ip("-n", NAME, "link", "set", "eth0", "up")
        yield lambda: ip("-n", NAME, "link", "set", "eth0", "down")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no cable can be laid here: {error.stderr.decode().strip()}")
    finally:
        ip("netns", "del", NAME)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds instead of two minutes."""
    monkeypatch.setattr(sockets, "KEEPALIVE_IDLE_S", 1)
    monkeypatch.setattr(sockets, "KEEPALIVE_PERIOD_S", 1)
    monkeypatch.setattr(sockets, "KEEPALIVE_PROBES", 2)
    monkeypatch.setattr(sockets, "UNACKNOWLEDGED_S", 2)


@pytest.mark.usefixtures("quick")
async def test_what_a_client_that_was_cut_off_held_is_freed(cut: Callable[[], None]) -> None:
    """One that waits for an answer, and one that is idle."""
    core = FakeCore()
    arrived, cancelled = asyncio.Event(), asyncio.Event()

    def hold(request: CheckedRequest, sink: Sink) -> None:
        request.cancel.on_cancel(cancelled.set)
        arrived.set()

    core.responses["ident"] = hold
    server = HttpServer(cast(Core, core), HttpLimits(), HERE, 0)
    port = await server.start()
    command = ["ip", "netns", "exec", NAME, sys.executable, "-c", CLIENT, HERE, str(port)]
    clients = [
        await asyncio.create_subprocess_exec(*command, text, stdin=asyncio.subprocess.PIPE)
        for text in (WORKING, IDLE)
    ]
    try:
        async with asyncio.timeout(patience()):
            await arrived.wait()
            while server.num_connections < 2:
                await asyncio.sleep(0.01)
            cut()
            await cancelled.wait()
            while server.num_connections:
                await asyncio.sleep(0.05)
    finally:
        for client in clients:
            client.kill()
            await client.wait()
        await server.close()
