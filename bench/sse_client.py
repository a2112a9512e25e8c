"""Reads many chat streams at once and counts their events: `python -m bench.sse_client JSON`."""

import asyncio
import json
import sys
import time
from typing import cast

import psutil
import uvloop

from bench.http1 import request_bytes
from bench.recorder import LoadFailed

WARMUP_S = 1.0
TOKENS = 3000
"""Of a stream; then the next one begins."""
REQUEST = {
    "model": "fake", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": TOKENS,
    "stream": True,
}  # fmt: skip


class Counter:
    """Events of all streams."""

    def __init__(self) -> None:
        self.num_events = 0
        self.num_reads = 0


class Stream(asyncio.Protocol):
    """One connection: asks, reads to the end, asks again."""

    def __init__(self, request: bytes, counter: Counter, failed: "asyncio.Future[None]") -> None:
        self._request = request
        self._counter = counter
        self._failed = failed
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        self._counter.num_reads += 1
        self._counter.num_events += data.count(b"\n\n")
        if b"data: [DONE]\n\n" in data:
            self._transport.write(self._request)
        if b"HTTP/1.1" in data and b"HTTP/1.1 200" not in data:
            self._failed.set_exception(LoadFailed(f"unexpected answer: {data[:300]!r}"))
        # Behind the last whole event, so that a cut counts no event twice or never.
        self._tail = data[data.rfind(b"\n\n") + 2 :] if b"\n\n" in data else data

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._failed.done():
            self._failed.set_exception(LoadFailed(f"the server closed the connection: {exc}"))


async def run(pid: int, port: int, streams: int, seconds: float) -> dict[str, float]:
    """The figures of `seconds` after a warm-up."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    counter = Counter()
    headers = {"Content-Type": "application/json"}
    request = request_bytes("/v1/chat/completions", headers, json.dumps(REQUEST).encode())
    for _ in range(streams):
        await loop.create_connection(lambda: Stream(request, counter, failed), "127.0.0.1", port)
    await asyncio.wait([failed], timeout=WARMUP_S)
    server = psutil.Process(pid)
    before, reads = counter.num_events, counter.num_reads
    server_s, own_s = _cpu_s(server), time.process_time()
    started_s = time.perf_counter()
    await asyncio.wait([failed], timeout=seconds)
    if failed.done():
        failed.result()
    elapsed_s = time.perf_counter() - started_s
    count, server_s = counter.num_events - before, _cpu_s(server) - server_s
    return {
        "rate_per_s": count / elapsed_s,
        "tokens_per_read": count / (counter.num_reads - reads),
        "server_cpu_us": server_s / count * 1e6,
        "server_busy": server_s / elapsed_s,
        "client_busy": (time.process_time() - own_s) / elapsed_s,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(**json.loads(sys.argv[1])))))
