"""Things around the server go wrong: clients that crawl, files and descriptors that run out.

It goes on serving whom it can and is itself again afterwards.
"""

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from fault_load import bystanders, callers
from fault_models import write_crash, write_model, write_repeat
from fault_room import MIB, Room, metric
from nginx_site import free_ports
from serving import RunningServer
from slow_clients import (
    read_slowly_over_grpc,
    read_slowly_over_http,
    write_slowly_over_grpc,
    write_slowly_over_http,
)

from trivet.server.logs.log import LOSSES_PERIOD_S

pytestmark = pytest.mark.alone
Serve = Callable[..., RunningServer]
SlowClient = Callable[[RunningServer, str], Awaitable[bool]]
CROWD = 500
CROWD_BYTES = CROWD * 192 * 1024
"""A client's request and answer of 48 KiB each, one of them once in pieces, and its connection."""


@pytest.fixture(scope="module")
def room(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    repository = tmp_path_factory.mktemp("chaos") / "models"
    repository.mkdir()
    write_model(repository, "good", inputs=[("INPUT0", "FP32", "4")])
    write_model(repository, "long", inputs=[("INPUT0", "FP32", "-1")])
    write_repeat(repository)
    write_crash(repository)
    room = Room(serve(repository, "--model-control-mode=explicit", "--load-model=*"), repository)
    try:
        # What a crowd takes the allocator keeps in part: further ones must not add to it.
        for act in (write_slowly_over_grpc, read_slowly_over_grpc):
            assert all(asyncio.run(in_a_crowd(room, act)))
        room.settle_baseline()
        yield room
        room.assert_unharmed()
        room.assert_settled()
    finally:
        room.close()


async def in_a_crowd(room: Room, act: SlowClient) -> list[bool]:
    """What they all come to."""
    return await asyncio.gather(*(act(room.server, "long") for _ in range(CROWD)))


@pytest.fixture
def bystanders_fare_well(room: Room) -> Iterator[None]:
    with room.lateness_bound(1.0), callers() as running:
        bystanders(running, room)
        yield
    assert running.faults == []
    assert min(running.counts[name] for name in ("http", "grpc")) >= 2


@pytest.mark.usefixtures("bystanders_fare_well")
@pytest.mark.parametrize(
    "act",
    [
        write_slowly_over_http, write_slowly_over_grpc,
        read_slowly_over_http, read_slowly_over_grpc,
    ],
)  # fmt: skip
async def test_a_crowd_of_slow_clients_costs_the_others_nothing(
    room: Room, act: SlowClient
) -> None:
    """Each sends the end of its request byte by byte, or takes its answer sip by sip, and has the
    right one whole in the end."""
    with room.memory_bound(CROWD_BYTES):
        answers = await in_a_crowd(room, act)
    assert all(answers)


@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_crowd_that_does_not_read_its_streams_costs_the_others_nothing(room: Room) -> None:
    """What is made for them is bounded: their requests are cancelled."""
    count = 20_000
    body = json.dumps({"IN": list(range(count)), "DELAY": [0] * count}).encode()
    head = (
        b"POST /v2/models/decoupled/generate_stream HTTP/1.1\r\nHost: a\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with room.memory_bound(96 * MIB), ExitStack() as crowd:
        for _ in range(8):
            reader = crowd.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", room.server.http_port))
            reader.sendall(head + body)
        name = "nv_inference_request_failure"
        room.server.wait_until(
            lambda: metric(room.server, name, model="decoupled", reason="CANCELED")[0] >= 8,
            "gave them up",
        )


def test_without_descriptors_old_connections_are_served_and_new_ones_once_there_are_some(
    room: Room,
) -> None:
    process = psutil.Process(room.pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    logged = len(room.server.output)
    with ExitStack() as many:
        process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 10, limits[1]))
        many.callback(process.rlimit, psutil.RLIMIT_NOFILE, limits)
        for _ in range(60):
            connection = many.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", room.server.http_port))
        before_s, began_s = sum(process.cpu_times()[:2]), time.monotonic()
        while time.monotonic() - began_s < 1.0:
            room.assert_unharmed()
            time.sleep(0.05)
        busy = (sum(process.cpu_times()[:2]) - before_s) / (time.monotonic() - began_s)
        assert busy < 0.7, "it spins"
        assert len(room.server.output) - logged < 20
    room.server.wait_until(lambda: room.server.get("/v2/health/ready")[0] == 200, "recovered")


def test_a_full_disk_for_logs_and_traces_costs_no_request(serve: Serve, models: Path) -> None:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    ports = free_ports(3)
    flags = [f"--{name}-port={port}" for name, port in zip(NAMES, ports, strict=True)]
    traces = ["mode=triton", "level=TIMESTAMPS", "rate=1", "triton,file=/dev/full"]
    server = serve(
        models,
        *flags,
        "--log-file=/dev/full",
        "--log-verbose=1",
        *(f"--trace-config={each}" for each in traces),
        wait=False,
    )
    # The log that would tell them is lost.
    server.http_port, server.grpc_port, server.metrics_port = ports
    server.wait_until(server.is_ready, "ready")
    room = Room(server, models)
    for _ in range(50):
        room.assert_unharmed()
    text = "".join(server.output)
    assert "Traceback" not in text
    assert text.count("the log cannot be written: [Errno 28] No space left on device") == 1
    assert LOSSES_PERIOD_S == 60
    room.close()
    assert server.stop() == 0


NAMES = ("http", "grpc", "metrics")


@pytest.mark.usefixtures("bystanders_fare_well")
def test_a_storm_of_scrapes_costs_the_others_nothing(room: Room) -> None:
    with callers() as running:
        for _ in range(4):
            running.add(lambda: "page" if "nv_inference_count" in room.server.metrics() else "")
        time.sleep(2)
    assert running.faults == []
    assert set(running.counts) == {"page"}
