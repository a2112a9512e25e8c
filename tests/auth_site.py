"""Keys in files, certificates of an authority of the test's own, and servers that use them."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
import trustme
from cryptography import x509
from http_site import FakeCore, console_room, listening

from trivet.server.auth.keyring import Keyring
from trivet.server.auth.keys import digest_of, new_secret
from trivet.server.auth.tls import Tls
from trivet.server.http.app import HttpLimits, HttpServer
from trivet.server.http.cors import Cors
from trivet.server.http.gate import Gate
from trivet.server.http.hosts import Hosts


@dataclass
class Clock:
    """Time as the test says."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Keys:
    """A keys file, and the keys themselves by name."""

    path: Path
    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, *scopes: str, more: str = "") -> str:
        """One more key; returns it."""
        secret = self.secrets[name] = new_secret()
        with self.path.open("a") as file:
            file.write(
                f'[[keys]]\nname = "{name}"\nhash = "sha256:{digest_of(secret).hex()}"\n'
                f"scopes = {list(scopes)}\n{more}\n"
            )
        return secret

    def header(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secrets[name]}"}


@dataclass
class Certificates:
    """An authority, and files with what it has signed for 127.0.0.1."""

    folder: Path
    authority: trustme.CA = field(default_factory=trustme.CA)

    def __post_init__(self) -> None:
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.renew()

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def cert(self) -> Path:
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    def renew(self) -> int:
        """A new certificate in the same place; returns its serial number."""
        return self.write("server", "127.0.0.1", "localhost")

    def write(self, name: str, *identities: str) -> int:
        """NAME.pem and NAME.key; returns the serial number."""
        issued = self.authority.issue_cert(*identities)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self.folder / f"{name}.key").write_bytes(issued.private_key_pem.bytes())
        (self.folder / f"{name}.pem").write_bytes(chain)
        return x509.load_pem_x509_certificate(chain).serial_number

    def client_context(self, name: str | None = None) -> ssl.SSLContext:
        """Of a client that trusts the authority, with the certificate NAME."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context


class GuardedSite:
    """An HTTP server over a fake core, behind the gate that the test describes, and a client."""

    def __init__(
        self,
        keyring: Keyring | None = None,
        *,
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
        tls: Tls | None = None,
    ) -> None:
        self.core = FakeCore()
        gate = Gate(keyring, Hosts(hosts) if hosts else None, Cors(origins) if origins else None)
        self.room = console_room()
        self.server = HttpServer(
            self.core, HttpLimits(), "127.0.0.1", 0, gate=gate, tls=tls, console=self.room
        )
        self._scheme = "http" if tls is None else "https"
        self.port = 0

    async def __aenter__(self) -> Self:
        self.port = await self.server.start()
        self.url = f"{self._scheme}://127.0.0.1:{self.port}"
        self.session = aiohttp.ClientSession(self.url, trust_env=False, trace_configs=[listening()])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.close()
        self.core.shared_memory.close()
