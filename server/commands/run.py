"""`trivet run`: one model, served and talked to by one command."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from trivet.server.commands.catalogue import address_of
from trivet.server.commands.chat import (
    begun,
    conversation_options,
    converse,
    language_models,
)
from trivet.server.commands.client import Client, api_key_option

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.2
_STOP_S = 40.0
"""How long a server may take to end: its own --exit-timeout-secs and some."""


@click.command()
@click.argument("model")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAG...]")
@conversation_options
@click.option("--http-port", default=0, help="port of its HTTP; 0: any free one")
@api_key_option
@click.option("--verbose", is_flag=True, help="show the server's log")
def run(
    model: str,
    flags: tuple[str, ...],
    system: str,
    given: tuple[str, ...],
    http_port: int,
    api_key: str,
    *,
    verbose: bool,
) -> None:
    """Serve one model and talk to it. MODEL is a file, a folder, an address such as hf://ORG/NAME
    or a short name such as smollm2. FLAGs go to `trivet serve`; with keys among them
    (--auth-keys-file) this command shows its own, --api-key.

    A language model answers in the terminal, or a prompt that comes through a pipe; any other model
    is served until Ctrl-C.
    """
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        place = stack.enter_context(repository_of(model))
        server = stack.enter_context(_started(place, http_port, flags, is_shown=verbose))
        client = Client(server.url, api_key)
        server.wait(client)
        names = language_models(client)
        if names:
            converse(begun(client, names[0], system, given))
        else:
            _serve_on(server, client)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Has SIGTERM and a terminal that is closed end this command by the way that Ctrl-C does: its
    server has a session of its own, and would else go on without it."""
    signals = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]
    before = [(each, signal.signal(each, _leave)) for each in signals]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)


def _leave(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    sys.exit(128 + number)


@contextmanager
def repository_of(model: str) -> Iterator[str]:
    """Where the model lies as a repository of its own: an address, or a folder that is made for it
    of links and gone afterwards. Raises UsageError for what there is not."""
    path = Path(model).expanduser()
    if "://" in model:
        yield model
    elif path.exists():
        with tempfile.TemporaryDirectory(prefix=".trivet-", dir=_beside(path)) as folder:
            _link(path, Path(folder))
            yield folder
    else:
        yield address_of(model)


def _beside(path: Path) -> Path | None:
    """The same file system, where links can be made; None: wherever temporary files are."""
    parent = path.resolve().parent
    return parent if os.access(parent, os.W_OK) else None


def _link(path: Path, repository: Path) -> None:
    """Puts a model's files into a repository, as links; as copies where there can be none. By the
    names that they are called by: the hub's cache is symbolic links to files that are called else.
    """

    def put(source: str, target: str) -> None:
        file = os.path.realpath(source)
        try:
            os.link(file, target)
        except OSError:
            shutil.copy2(file, target)

    called = path.resolve().name if path.name in ("", "..") else path.name
    if path.is_dir():
        shutil.copytree(path, repository / called, copy_function=put)
    else:
        put(str(path), str(repository / called))


@dataclass(frozen=True, slots=True)
class _Server:
    """One that was started for this command."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def wait(self, client: Client) -> None:
        """Until its model serves. Raises ClickException when it ends instead, with what it said."""
        console = Console(stderr=True)
        with console.status("loading the model (the first time it is fetched)"):
            while not self._is_ready(client):
                if self.process.poll() is not None:
                    raise click.ClickException(self._last_words())
                time.sleep(_POLL_S)

    def _is_ready(self, client: Client) -> bool:
        try:
            return client.status("/v2/health/ready") == 200
        except click.ClickException:
            return False

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        wrong = [line for line in lines if line[:1] in "WEC"] or lines
        return "the server ended:\n" + "\n".join(wrong[-5:])


@contextmanager
def _started(
    place: str, http_port: int, flags: tuple[str, ...], *, is_shown: bool
) -> Iterator[_Server]:
    port, grpc_port, metrics_port = http_port or _free_port(), _free_port(), _free_port()
    ports = (f"--http-port={port}", f"--grpc-port={grpc_port}", f"--metrics-port={metrics_port}")
    command = [sys.executable, "-m", "trivet", "serve", place, *ports, "--no-progress", *flags]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as written:
            process = subprocess.Popen(  # noqa: S603 - our own program, the flags are its user's
                command,
                stdout=subprocess.DEVNULL,
                stderr=None if is_shown else written,
                text=True,
                start_new_session=True,  # Ctrl-C is this command's, which breaks off an answer
            )
        try:
            yield _Server(process, f"http://127.0.0.1:{port}", log)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _serve_on(server: _Server, client: Client) -> None:
    """Says where the model is and how it is asked, until Ctrl-C."""
    index: list[dict[str, Any]] = client.call("POST", "/v2/repository/index", {})
    for entry in index:
        name = entry["name"]
        click.echo(f"{name} {entry.get('version', '')} is {entry.get('state', '')} at {server.url}")
        click.echo(f"  what it takes:  curl {server.url}/v2/models/{name}")
        click.echo(f"  ask it:         trivet infer {name} --url {server.url} --input NAME=VALUES")
    try:
        server.process.wait()
    except KeyboardInterrupt:
        click.echo()
