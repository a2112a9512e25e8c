"""Clients that do not fit beside the packages of the development environment: each in one of its
own, with the versions that `clients/NAME.txt` names and nothing that pip would choose."""

import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from patience import patience
from programs import do_without

_VERSIONS = Path(__file__).parent / "clients"


@dataclass(frozen=True, slots=True)
class ClientEnvironment:
    """One that is installed."""

    folder: Path

    @property
    def programs(self) -> Path:
        """Where its programs are."""
        return self.folder / "bin"

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> str:
        """What one of its programs prints ("python", "-c", "..."); the test fails if it does."""
        ended = subprocess.run(
            [self.programs / command[0], *command[1:]],
            capture_output=True, text=True, timeout=patience(240), cwd=self.folder,
            env=_clean() | dict(env or {}),
        )  # fmt: skip
        if ended.returncode:
            pytest.fail(f"{ended.stdout[-3000:]}\n{ended.stderr[-6000:]}", pytrace=False)
        return ended.stdout


def client_environment(folder: Path, name: str) -> ClientEnvironment:
    """Makes the environment of a client. Skips the test where its packages cannot be fetched, or
    fails it with STRICT=1."""
    made = ClientEnvironment(folder / name)
    venv.create(made.folder, symlinks=True)
    ended = subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", made.programs / "python", "install", "-q",
            "--no-deps", "--disable-pip-version-check", "-r", _VERSIONS / f"{name}.txt",
        ],
        capture_output=True, text=True, timeout=patience(600), env=_clean(),
    )  # fmt: skip
    if ended.returncode:
        told = ended.stderr.strip() or "nothing said why"
        do_without(f"the packages of {name} cannot be installed: {told.splitlines()[-1]}")
    return made


def _clean() -> dict[str, str]:
    """Without what would lead to the packages of this environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
