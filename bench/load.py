"""The load client, in a process of its own: `python -m bench.load` reads a `Load` as JSON from
standard input and prints its figures as JSON."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import uvloop

from bench.http1 import HttpConnection
from bench.http2 import GrpcConnection
from bench.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Load:
    """A closed loop: `concurrency` requests in flight, each answer sends the next request."""

    protocol: str
    """"http" or "grpc"."""
    port: int
    server_pid: int
    concurrency: int
    seconds: float
    warmup_seconds: float
    request_file: str
    """HTTP: the whole request; gRPC: the message."""
    payload_file: str
    """What an answer must contain."""
    path: str = ""
    """gRPC: the method."""
    more_request_files: tuple[str, ...] = ()
    """HTTP: further requests, sent in turn with the first."""

    @property
    def num_connections(self) -> int:
        """gRPC puts up to 8 calls on a connection, HTTP/1.1 one."""
        return self.concurrency if self.protocol == "http" else max(1, self.concurrency // 8)


async def drive(load: Load, requests: Sequence[bytes], payload: bytes) -> dict[str, float]:
    """Runs the load and returns the recorder's figures. Raises LoadFailed."""
    in_turn = cycle(requests)
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    recorder = Recorder(load.server_pid, payload)
    num_streams = load.concurrency // load.num_connections

    def connection() -> asyncio.Protocol:
        if load.protocol == "http":
            return HttpConnection(in_turn, recorder, failed)
        return GrpcConnection(requests[0], load.path, num_streams, recorder, failed)

    for _ in range(load.num_connections):
        await loop.create_connection(connection, "127.0.0.1", load.port)
    await asyncio.wait([failed], timeout=load.warmup_seconds)
    recorder.begin()
    await asyncio.wait([failed], timeout=load.seconds)
    if failed.done():
        failed.result()
    return recorder.end()


if __name__ == "__main__":
    wanted = Load(**json.load(sys.stdin))
    names = (wanted.request_file, *wanted.more_request_files)
    bodies = [Path(name).read_bytes() for name in names]
    print(json.dumps(uvloop.run(drive(wanted, bodies, Path(wanted.payload_file).read_bytes()))))
