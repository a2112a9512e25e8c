"""An HTTP server on loopback for the evaluations alone, whatever the front rooms of the clients
are: with a key of its own, which nobody else is told."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from trivet.server.auth.keyring import Keyring
from trivet.server.auth.keys import digest_of, new_secret
from trivet.server.core import Core
from trivet.server.http.app import HttpLimits, HttpServer
from trivet.server.http.gate import Gate

_KEYS = """[[keys]]
name = "evaluation"
hash = "sha256:{digest}"
scopes = ["infer", "admin"]
"""


@dataclass(frozen=True, slots=True)
class PrivateDoor:
    """Where it is, and the key."""

    url: str
    secret: str


@asynccontextmanager
async def open_private_door(core: Core) -> AsyncIterator[PrivateDoor]:
    """Listens until the block ends. Raises OSError."""
    secret = new_secret()
    with tempfile.NamedTemporaryFile("w", prefix="trivet-", suffix=".toml") as file:
        file.write(_KEYS.format(digest=digest_of(secret).hex()))
        file.flush()
        keyring = Keyring(Path(file.name))
    server = HttpServer(core, HttpLimits(), "127.0.0.1", 0, gate=Gate(keyring, None, None))
    port = await server.start()
    try:
        yield PrivateDoor(f"http://127.0.0.1:{port}", secret)
    finally:
        await server.close()
