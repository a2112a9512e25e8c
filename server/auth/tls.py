"""Certificates of a listening port: read, checked, and read again when their files change."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from trivet.backends.api import InvalidConfig, storage_fault
from trivet.server.logs.outage import Outage

SHUTDOWN_TIMEOUT_S = 1.0
"""How long a connection waits for a client's goodbye after ours; its end needs none."""
HANDSHAKE_TIMEOUT_S = 10.0
"""How long a client may take to agree on keys."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files."""

    service: str
    """Whose they are, for texts."""
    cert: Path
    """The server's certificate, and those between it and the root."""
    key: Path
    client_ca: Path | None = None
    """Clients must show a certificate that one of these has signed; None: they need none."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that are there."""
        return (self.cert, self.key, *(() if self.client_ca is None else (self.client_ca,)))


class TlsSocket(TypedDict, total=False):
    """What `loop.create_server` wants to know."""

    ssl: ssl.SSLContext
    ssl_handshake_timeout: float
    ssl_shutdown_timeout: float


class Tls:
    """What a port offers to those who connect. Owned by the event loop."""

    def __init__(self, files: TlsFiles, protocol: str) -> None:
        """`protocol` is ALPN's name of what is spoken. Raises InvalidConfig."""
        self.files = files
        self._protocol = protocol
        self._outage = Outage()
        self._current = _context(files, protocol)
        self.context = _context(files, protocol)
        """For the listening socket. Each handshake goes on with the newest files."""
        # OpenSSL calls this for clients that name no server, too.
        self.context.sni_callback = self._renew

    def reload(self) -> bool:
        """New handshakes use the files as they are now; broken ones are told to the log, and the
        old stay. Connections that are open keep what they have agreed on.

        Returns False where the disk is at fault: the files must be read again."""
        try:
            self._current = _context(self.files, self._protocol)
        except InvalidConfig as error:
            is_passing = bool(storage_fault(error))
            if not is_passing or self._outage.goes_on():
                _log.error("%s; the certificate read before stays in use", error.message)
            return not is_passing
        self._outage.ends()
        _log.info("%s: certificate read from %s", self.files.service, self.files.cert)
        return True

    def _renew(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = self._current


def socket_options(tls: Tls | None) -> TlsSocket:
    """For the listening socket; nothing where plain text is spoken."""
    if tls is None:
        return {}
    return {
        "ssl": tls.context,
        "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S,
        "ssl_shutdown_timeout": SHUTDOWN_TIMEOUT_S,
    }


def _context(files: TlsFiles, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([protocol])
    # A resumed session would go on with what was checked under files that are gone.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    try:
        # An empty password instead of a question on the terminal.
        context.load_cert_chain(files.cert, files.key, password="")
    except (OSError, ValueError) as error:
        raise InvalidConfig(
            f"{files.service}: certificate '{files.cert}' and key '{files.key}' cannot be used: "
            f"{error}. They must be PEM files that belong together, the key without a password"
        ) from _of_the_system(error)
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ValueError) as error:
            raise InvalidConfig(
                f"{files.service}: the clients' certificate authority '{files.client_ca}' cannot "
                f"be used: {error}. It must be a PEM file of certificates"
            ) from _of_the_system(error)
    return context


def _of_the_system(error: Exception) -> Exception | None:
    """Without OpenSSL's errors, whose numbers are its own: a key of another certificate's has that
    of a stale mount."""
    return None if isinstance(error, ssl.SSLError) else error
