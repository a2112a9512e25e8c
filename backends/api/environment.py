"""Environments of models: what a model's own process runs with instead of the server's Python."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Environment:
    """A folder with an interpreter and packages, ready to be used."""

    folder: Path
    python: Path
    """The interpreter in it."""
    has_libraries: bool = False
    """Whether shared libraries in its `lib` go before the system's, as conda's do."""


@dataclass(frozen=True, slots=True)
class Making:
    """Of an environment that is being made."""

    stop: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it any more."""
    max_bytes: int = 1 << 40
    """That an archive may hold."""


class Recipe(Protocol):
    """How an environment is made. Equal keys make equal ones."""

    @property
    def key(self) -> str:
        """A file name."""

    @property
    def model(self) -> str:
        """For whom it is made."""

    def make(self, folder: Path, making: Making) -> None:
        """Fills an empty folder, which stays where it is. Raises LoadFailed, OSError."""

    def made(self, folder: Path) -> Environment:
        """What a folder that it has filled is. Raises LoadFailed."""
