"""An address that is told what happens."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue

import pytest
from patience import patience

from trivet.backends.api import InvalidConfig
from trivet.server.rollouts import webhooks
from trivet.server.rollouts.webhooks import Webhook


class Listening:
    """A server that refuses the first `num_refused` posts."""

    def __init__(self, num_refused: int = 0) -> None:
        told = self.told = Queue[str]()
        refused = iter([503] * num_refused)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = next(refused, 200)
                if status == 200:
                    told.put(json.loads(body)["event"])
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:  # noqa: A002
                """Silent."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    monkeypatch.setattr(webhooks, "PAUSE_S", 0.001)
    listening = Listening(num_refused=1)
    yield listening
    listening.close()


def test_it_is_told_of_each_event_in_order_also_if_it_refuses_once(stubborn: Listening) -> None:
    webhook = Webhook(stubborn.url)
    for event in ("started", "began", "promoted"):
        webhook.happened({"event": event})

    told = [stubborn.told.get(timeout=patience()) for _ in range(3)]
    assert told == ["started", "began", "promoted"]
    webhook.close()


def test_an_answer_that_is_no_http_does_not_end_the_telling(stubborn: Listening) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stranger = threading.Thread(target=_answer_nonsense, args=(server,), daemon=True)
        stranger.start()
        webhook = Webhook(f"http://127.0.0.1:{port}/")
        webhook.happened({"event": "started"})
        stranger.join(patience())
        webhook._url = stubborn.url
        webhook.happened({"event": "began"})

        told = {stubborn.told.get(timeout=patience())}
        assert told <= {"started", "began"}
        webhook.close()


def _answer_nonsense(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65_536)
        connection.sendall(b"220 mail.example ESMTP\r\n\r\n")


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="--rollout-webhook is to begin with http"):
        Webhook("file:///etc/passwd")
