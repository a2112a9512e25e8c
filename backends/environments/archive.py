"""Archives with an environment, as Triton's EXECUTION_ENV_PATH names them."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import Environment, LoadFailed, Making
from trivet.backends.environments import unpack
from trivet.backends.environments.layout import Layout
from trivet.backends.environments.work import Work, interpreter_words


@dataclass(frozen=True, slots=True)
class ArchiveRecipe:
    """One archive, unpacked."""

    path: Path
    digest: str
    """Of its bytes."""
    work: Work

    @classmethod
    def of(cls, path: Path, work: Work) -> "ArchiveRecipe":
        """Reads all of it. Raises OSError."""
        return cls(path, _digest(path), work)

    @property
    def key(self) -> str:
        """See Recipe. A virtual environment is given this Python, so that counts, too."""
        content = f"{self.digest} {interpreter_words()}"
        return f"archive-{hashlib.sha256(content.encode()).hexdigest()[:40]}"

    @property
    def model(self) -> str:
        """See Recipe."""
        return self.work.model

    def make(self, folder: Path, making: Making) -> None:
        """See Recipe."""
        self._unpack(folder, making)
        layout = Layout.of(folder, self.work.what)
        layout.settle(self.work.what)
        environment = layout.environment(self.work.what)
        rewriter = layout.folder / "bin" / "conda-unpack"
        if rewriter.is_file():
            # Paths in conda's files are those of where it was packed.
            command = (str(environment.python), str(rewriter))
            self.work.must_run("conda-unpack", command, layout.folder, making)

    def made(self, folder: Path) -> Environment:
        """See Recipe."""
        return Layout.of(folder, self.work.what).environment(self.work.what)

    def _unpack(self, folder: Path, making: Making) -> None:
        words = (str(self.path.absolute()), str(folder), str(making.max_bytes))
        command = (sys.executable, "-P", unpack.__file__, *words)
        ended = self.work.run(f"unpack {self.path.name}", command, folder, making)
        last = ended.lines[-1] if ended.lines else f"exit code {ended.code}"
        if ended.code == unpack.FAILED and last.isdigit():
            raise OSError(int(last), os.strerror(int(last)))
        if ended.code != 0:
            raise LoadFailed(f"{self.work.what}: {last}")
        if _digest(self.path) != self.digest:
            raise LoadFailed(f"{self.work.what} was changed while it was unpacked; load it again")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
