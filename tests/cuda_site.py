"""A CUDA runtime for tests: tests/fake_cudart.c, compiled once."""

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

SOURCE = Path(__file__).with_name("fake_cudart.c")


@cache
def fake_cudart() -> str:
    """The library's path. Skips where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    target = Path(mkdtemp()) / "libcudart_fake.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", target, SOURCE], check=True)
    return str(target)


class Notes:
    """What was called since the last look, and what is still held."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(fake_cudart())
        self._library.fake_notes.restype = ctypes.c_char_p
        self._library.fake_live_bytes.restype = ctypes.c_size_t
        self._library.fake_forget()

    def calls(self) -> list[str]:
        """The functions, in order."""
        text: bytes = self._library.fake_notes()
        self._library.fake_forget()
        return text.decode().split()

    @property
    def live_bytes(self) -> int:
        return int(self._library.fake_live_bytes())

    @property
    def live_handles(self) -> int:
        return int(self._library.fake_live_handles())
