"""What a load client has seen: latencies, and the first and last answers to check."""

import time

from bench.cpu import tree_cpu_s

Parts = list[bytes]


class LoadFailed(Exception):
    """A server answered with an error, with something else than it should, or hung up."""


class Recorder:
    """Counts answers between `begin` and `end`. Owned by the load client's event loop."""

    def __init__(self, server_pid: int, payload: bytes) -> None:
        self._server_pid = server_pid
        self._payload = payload
        self._latencies_ns: list[int] = []
        self._is_recording = False
        self._first: Parts = []
        self._last: Parts = []

    def answered(self, sent_ns: int, parts: Parts) -> None:
        """One whole answer, in the pieces in which it came."""
        self._first = self._first or parts
        self._last = parts
        if self._is_recording:
            self._latencies_ns.append(time.perf_counter_ns() - sent_ns)

    def begin(self) -> None:
        """The warm-up is over."""
        self._is_recording = True
        self._server_cpu_s = tree_cpu_s(self._server_pid)
        self._client_cpu_s = time.process_time()
        self._started_ns = time.perf_counter_ns()

    def end(self) -> dict[str, float]:
        """The figures since `begin`. Raises LoadFailed when the first or last answer was wrong."""
        elapsed_s = (time.perf_counter_ns() - self._started_ns) / 1e9
        client_busy = (time.process_time() - self._client_cpu_s) / elapsed_s
        server_cpu_s = tree_cpu_s(self._server_pid) - self._server_cpu_s
        latencies = sorted(self._latencies_ns)
        if not latencies:
            raise LoadFailed(f"no answer in {elapsed_s:.1f} s")
        for which, parts in (("first", self._first), ("last", self._last)):
            if self._payload not in b"".join(parts):
                raise LoadFailed(f"the {which} answer does not hold the payload that was sent")
        return {
            "rate_per_s": len(latencies) / elapsed_s,
            "p50_us": latencies[len(latencies) // 2] / 1e3,
            "p99_us": latencies[len(latencies) * 99 // 100] / 1e3,
            "server_cpu_us": server_cpu_s / len(latencies) * 1e6,
            "client_busy": client_busy,
        }
