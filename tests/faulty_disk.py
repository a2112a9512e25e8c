"""A disk that fails on demand (EIO), for processes that a test starts: tests/faulty_disk.c."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("faulty_disk.c")


class FaultyDisk:
    """What lies below one folder, or one file, for whoever is started with `below`."""

    def __init__(self, workspace: Path) -> None:
        """`workspace`: a folder of its own, for the library and the switch. Skips where there is
        no compiler, or no way to come between a process and its C library."""
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            pytest.skip("no C compiler")
        self._library = workspace / "faulty_disk.so"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(SOURCE)]
        subprocess.run([*command, "-ldl"], check=True)
        self._switch = workspace / "switch"
        self._counter = workspace / "switch.count"

    @contextmanager
    def below(self, folder: Path) -> Iterator[None]:
        """Processes that are started within the block see this folder on the disk."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(self._library))
            patch.setenv("FAULTY_DISK_FOLDER", str(folder))
            patch.setenv("FAULTY_DISK_SWITCH", str(self._switch))
            yield

    @contextmanager
    def failing(self, *kinds: str) -> Iterator[None]:
        """Calls of these kinds (list, open, read, stat, write) fail within the block."""
        new = self._switch.with_suffix(".new")
        new.write_text(" ".join(kinds))
        new.rename(self._switch)
        try:
            yield
        finally:
            self._switch.unlink()

    @property
    def num_failed(self) -> int:
        """Calls that have failed so far."""
        return self._counter.stat().st_size if self._counter.exists() else 0
