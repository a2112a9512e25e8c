"""The verbs' HTTP client: what a server's fall in the middle of an answer is told as."""

import socket
import threading

import click
import pytest

from trivet.server.commands.client import Client

_BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'e\r\ndata: {"a":1}\n\r\n'
)


@pytest.mark.parametrize(
    "sent", [_BEGUN, b"SSH-2.0-OpenSSH\r\n", b""], ids=["fall", "no HTTP", "nothing"]
)
def test_an_answer_that_breaks_off_is_told(sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            opened, _ = listening.accept()
            with opened:
                opened.recv(65536)
                opened.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(click.ClickException, match=r"broke off|no server answers"):
            list(client.events("/v1/chat/completions", {}))
        thread.join()
