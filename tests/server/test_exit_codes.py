"""What commands end with when a server does not do what they ask: one sentence, a code by kind."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from trivet.server.cli import main
from trivet.server.commands import exits


def chat(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["chat", "m", "--url", url, *arguments], input="hello\n")


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code", "told"),
    [
        (401, b'{"error": {"message": "no key"}}', exits.KEY, "TRIVET_API_KEY"),
        (403, b'{"error": "no scope"}', exits.KEY, "no scope"),
        (404, b'{"error": {"message": "no model m"}}', exits.NOT_THERE, "no model m"),
        (404, b'{"error": "Not Found"}', exits.VERSION, "does not know /v1/chat/completions"),
        (502, b"<html>", exits.VERSION, "that is no trivet"),
        (503, b'{"error": "full"}', 1, "full (status 503)"),
    ],
)
def test_a_refusal_has_the_code_of_its_kind(status: int, body: bytes, code: int, told: str) -> None:
    with answering(status, body) as url:
        done = chat(url)
    assert (done.exit_code, done.output.count("Error:")) == (code, 1), done.output
    assert told in done.output


@pytest.mark.parametrize("url", ["http://[::1", "ftp://a", "http://", "a:port", "http://a b"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    done = chat(url)
    assert done.exit_code == 2, done.output
    assert "is no address of a server" in done.output


def test_nobody_who_answers_has_a_code() -> None:
    with answering(200, b"") as url:
        pass
    done = chat(url)
    assert done.exit_code == exits.NOBODY
    assert "no server answers at" in done.output


def test_what_is_neither_here_nor_known_is_told_before_a_server_starts(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["serve", str(tmp_path / "gone")])
    assert done.exit_code == 2
    assert "is not a folder, nor a file; short names are" in done.output
