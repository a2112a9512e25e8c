"""Callers that ask a server without a pause while a test does something to it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from typing import Any

import grpc
from fault_room import Answer, Room, good_message, read


class Callers:
    """Threads that call functions over and over; keeps what came of it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By what the functions returned."""
        self.faults: list[str] = []
        """What was raised."""
        self.resources = ExitStack()
        """Closed when all have stopped."""
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, ask: Callable[[], str], pause_s: float = 0.0) -> None:
        """One more thread that calls this."""
        thread = threading.Thread(target=self._run, args=(ask, pause_s))
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self.resources.close()

    def _run(self, ask: Callable[[], str], pause_s: float) -> None:
        while not self._done.is_set():
            try:
                self.counts[ask()] += 1
            except (AssertionError, OSError, grpc.RpcError) as error:
                self.faults.append(repr(error)[:300])
            time.sleep(pause_s)


@contextmanager
def callers() -> Iterator[Callers]:
    """They have stopped at the end of the block."""
    running = Callers()
    try:
        yield running
    finally:
        running.stop()


def bystanders(running: Callers, room: Room, *bodies: tuple[str, bytes]) -> None:
    """Callers over both protocols who must not notice anything: each answer is right and comes
    within a few seconds. `bodies`: further models and what they are asked over HTTP."""
    connection = running.resources.enter_context(closing(room.http()))

    def over_http() -> str:
        room.assert_good(connection)
        return "http"

    def over_grpc() -> str:
        message = good_message("good")
        answer = room.infer(message)
        assert answer.raw_output_contents[0] == message.raw_input_contents[0]
        return "grpc"

    running.add(over_http, 0.005)
    running.add(over_grpc, 0.005)
    for model, body in bodies:
        own = running.resources.enter_context(closing(room.http()))
        running.add(_asking(own, model, body), 0.01)


def _asking(connection: HTTPConnection, model: str, body: bytes) -> Callable[[], str]:
    def ask() -> str:
        connection.request("POST", f"/v2/models/{model}/infer", body)
        answer = read(connection)
        assert answer.status == 200, answer
        return model

    return ask


def outcome(call: Any) -> tuple[str, str]:
    """Code and text of a gRPC call that has failed."""
    return call.code().name, str(call.details())


def is_refused_for_now(answer: Answer) -> bool:
    """Whether it says: try again, and when."""
    return answer.status == 503 and int(answer.headers.get("retry-after", "0")) >= 1
