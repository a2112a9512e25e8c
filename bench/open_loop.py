"""The client that does not wait: `python -m bench.open_loop PORT REQUEST_FILE RATE SECONDS` sends
so many requests a second, whatever becomes of them, and prints what came back as JSON."""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median, quantiles

import uvloop

HEAD_END = b"\r\n\r\n"


class Client:
    """Connections that carry one request at a time each; as many as are needed."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.counts: Counter[int] = Counter()
        self.refused_ms: list[float] = []
        self.good_ms: list[float] = []
        self.num_without_retry_after = 0

    async def ask(self) -> None:
        """One request and what came of it."""
        streams = self._idle.pop() if self._idle else None
        reader, writer = streams or await asyncio.open_connection("127.0.0.1", self._port)
        sent_s = time.monotonic()
        writer.write(self._request)
        head = await reader.readuntil(HEAD_END)
        status, length = int(head[9:12]), _length(head)
        await reader.readexactly(length)
        self.counts[status] += 1
        elapsed_ms = 1000 * (time.monotonic() - sent_s)
        if status == 200:
            self.good_ms.append(elapsed_ms)
        else:
            self.refused_ms.append(elapsed_ms)
            self.num_without_retry_after += b"retry-after:" not in head.lower()
        self._idle.append((reader, writer))

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))


async def offer(port: int, request: bytes, rate_per_s: float, seconds: float) -> dict[str, float]:
    """The figures of an open loop. A late tick sends what it has missed."""
    client = Client(port, request)
    async with asyncio.TaskGroup() as tasks:
        began_s, num_sent = time.monotonic(), 0
        while (elapsed_s := time.monotonic() - began_s) < seconds:
            for _ in range(int(elapsed_s * rate_per_s) - num_sent):
                tasks.create_task(client.ask())
                num_sent += 1
            await asyncio.sleep(0.001)
    client.close()
    counts, refused = client.counts, client.refused_ms or [0.0, 0.0]
    good = client.good_ms or [0.0, 0.0]
    return {
        "offered_per_s": num_sent / seconds,
        "good_per_s": counts[200] / seconds,
        "good_p50_ms": median(good),
        "good_p99_ms": quantiles(good, n=100)[-1] if len(good) > 1 else good[0],
        "refused_per_s": (counts[503] + counts[429]) / seconds,
        "other": counts.total() - counts[200] - counts[503] - counts[429],
        "without_retry_after": client.num_without_retry_after,
        "refused_p50_ms": median(refused),
        "refused_p99_ms": quantiles(refused, n=100)[-1] if len(refused) > 1 else refused[0],
    }


if __name__ == "__main__":
    port, file, rate, seconds = sys.argv[1:]
    figures = offer(int(port), Path(file).read_bytes(), float(rate), float(seconds))
    print(json.dumps(uvloop.run(figures)))
