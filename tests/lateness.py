"""Asks a server over and over whether it lives, until standard input ends; prints the longest wait
in seconds. A process of its own, for a test that keeps its own busy would measure itself.

What counts is how long the server left the question lying, not how long the machine left the
server: from each wait goes the time in which a thread of the server, or this process, would have
run but had no core."""

import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from patience import patience


def main() -> None:
    port, pid = sys.argv[1:]
    connection = HTTPConnection("127.0.0.1", int(port), timeout=patience())
    ended = threading.Event()
    threading.Thread(target=wait_for_end, args=(ended,), daemon=True).start()
    worst_s = 0.0
    print("asking", flush=True)
    while not ended.is_set():
        coreless_s, started_s = without_a_core_s(pid), time.monotonic()
        connection.request("GET", "/v2/health/live")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        waited_s = time.monotonic() - started_s
        worst_s = max(worst_s, waited_s - (without_a_core_s(pid) - coreless_s))
    connection.close()
    print(worst_s)


def without_a_core_s(pid: str) -> float:
    """How long the threads of the server and of this process have waited for a core until now, as
    far as the kernel tells: the second number of each thread's schedstat, in nanoseconds."""
    waited_ns = 0
    for process in (pid, "self"):
        for thread in Path(f"/proc/{process}/task").glob("*/schedstat"):
            try:
                waited_ns += int(thread.read_text().split()[1])
            except (OSError, ValueError, IndexError):
                continue  # the thread has ended, or the kernel counts nothing
    return waited_ns / 1e9


def wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main()
