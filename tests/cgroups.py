"""A control group of its own for a process, in which the kernel ends what takes too much memory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class MemoryGroup:
    """Made by `memory_group`."""

    def __init__(self, folder: Path, *, is_v2: bool) -> None:
        self._folder = folder
        self._limits = ["memory.max", "memory.swap.max"] if is_v2 else ["memory.limit_in_bytes"]

    def confine(self, pid: int, limit_bytes: int) -> None:
        """From now on the process may take so much more. Skips the test where that cannot be."""
        for name in self._limits:
            value = "0" if "swap" in name else str(limit_bytes)
            try:
                (self._folder / name).write_text(value)
            except OSError as error:
                pytest.skip(f"{name} cannot be set here: {error.strerror}")
        (self._folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Skips the test where no group can be made: that needs root."""
    is_v2 = (_V2 / "cgroup.controllers").exists()
    folder = (_V2 if is_v2 else _V1) / f"trivet-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror}); run it as root")
    try:
        yield MemoryGroup(folder, is_v2=is_v2)
    finally:
        folder.rmdir()
