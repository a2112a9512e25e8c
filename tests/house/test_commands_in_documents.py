"""Every command that a document tells the reader to run does what the document says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import Command, documents
from example_site import open_examples
from serving import RunningServer, write_adder

COMMANDS = [command for document in documents() for command in document.commands()]
# A shell that stops at the first failure, with curl failing on an error status.
SHELL = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


@pytest.fixture(scope="module")
def site() -> Iterator[RunningServer]:
    """What `make serve` serves."""
    with open_examples() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run: as in the checkout, with the models that the documents speak of."""
    made = tmp_path_factory.mktemp("reader")
    (made / ".venv").symlink_to(sys.prefix)
    (made / "my_models").mkdir()
    for version in (1, 2):
        write_adder(made / "my_models", "fraud", version)
    return made


def test_the_first_pages_have_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.place)
def test_a_command_of_a_document_works(command: Command, site: RunningServer, folder: Path) -> None:
    text = at_ports_of(site, command.text)
    argv = {
        "sh": ["bash", "-c", SHELL + text],
        "python": [sys.executable, "-W", "error", "-c", text],
    }[command.language]
    address = f"http://{site.http}"
    environment = {
        **os.environ,
        "COLUMNS": "100",
        "TRIVET_HEALTH_URL": address,
        "TRIVET_INFER_URL": address,
        "TRIVET_MODELS_URL": address,
    }

    told = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )

    assert told.returncode == 0, told.stderr + told.stdout
    assert told.stdout.strip()
    assert not command.prints or is_shown(told.stdout, command.prints), told.stdout


def at_ports_of(site: RunningServer, text: str) -> str:
    """The command for this server instead of one on the default ports."""
    ports = {"8000": site.http_port, "8001": site.grpc_port, "8002": site.metrics_port}
    return re.sub(r"\blocalhost:(800[012])\b", lambda m: f"127.0.0.1:{ports[m[1]]}", text)


def is_shown(printed: str, document: str) -> bool:
    """Whether the document shows what was printed: `...` is anything, white space nothing."""
    parts = ["".join(part.split()) for part in document.split("...")]
    return bool(re.fullmatch(".*".join(map(re.escape, parts)), "".join(printed.split())))
