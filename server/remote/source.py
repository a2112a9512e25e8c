"""What a repository that lies elsewhere must do for us, whoever keeps it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from trivet.server.settings import Settings

CHUNK_BYTES = 1 << 20
"""About so much of a file is written between two yields of `fetch`: a shutdown waits for it."""


class RemoteError(Exception):
    """The source says no, or its files are not what can be served: asking again changes nothing
    before somebody acts. The text is a sentence for the log that says what to do; it holds no
    credentials."""


class Doubtful(RemoteError):
    """What the source shows can hardly be all that it has: what was there before is kept."""


class Unreachable(RemoteError):
    """The source did not answer, broke off or asked for patience: the same may work later."""

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        """`wait_s`: for how long it is of no use to ask again."""
        super().__init__(text)
        self.wait_s = wait_s


class Changed(Exception):
    """The file is no longer the one that was listed."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """One state of a file. Two files of one source with the same stamp have the same bytes."""

    size: int
    """In bytes."""
    tag: str
    """What changes with the content: an ETag, or a revision and the id of a blob."""
    sha256: str = ""
    """In hex, of the whole content, where the source tells it: it is then checked."""


class Addressed(Protocol):
    """What files here are known to be of."""

    @property
    def address(self) -> str:
        """See Source."""


class Source(Protocol):
    """A repository elsewhere. Called from several threads at a time, never from the event loop."""

    address: str
    """As the operator gave it, without credentials: what log lines call it."""

    def listing(self) -> dict[str, Stamp]:
        """Every file by its path below the repository, with slashes. Paths are as the source has
        them: whether they can be files here is asked by the caller. Raises RemoteError."""

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:
        """Appends the file's bytes from offset `at` to `into`, which has `at` bytes; yields how
        many it has written since the last yield. Tries once: whoever asks tries again. Raises
        Unreachable, RemoteError, or Changed if the file is no longer the stamp's."""


@runtime_checkable
class OneModel(Protocol):
    """A source that holds one model, which goes on to other versions."""

    @property
    def model(self) -> str:
        """Its name."""

    def keep(self, versions: frozenset[int]) -> None:
        """These serve: they are listed beside a newer one until they do not any more, for their
        instances may have to open their files again. From any thread."""


class OpenSource(Protocol):
    """What a module of this room has for its schemes."""

    def __call__(self, address: str, settings: Settings) -> Source:
        """Reads the address and finds credentials; asks nobody yet. Raises RemoteError."""
