"""Asks a server over and over whether it lives, until standard input ends; prints the longest wait
in seconds. A process of its own, for a test that keeps its own busy would measure itself."""

import sys
import threading
import time
from http.client import HTTPConnection


def main() -> None:
    connection = HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
    ended = threading.Event()
    threading.Thread(target=wait_for_end, args=(ended,), daemon=True).start()
    worst_s = 0.0
    print("asking", flush=True)
    while not ended.is_set():
        started_s = time.monotonic()
        connection.request("GET", "/v2/health/live")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        worst_s = max(worst_s, time.monotonic() - started_s)
    connection.close()
    print(worst_s)


def wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main()
