"""Who may connect and ask, as the options say: keys, certificates, hosts. Watches their files."""

from pathlib import Path

from trivet.server.auth.exposure import grpc_tls, http_tls, metrics_tls
from trivet.server.auth.file_watch import FileWatch, FileWatches
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.restricted import Restrictions
from trivet.server.grpc.gate import RESTRICTED_PREFIX, KeyGate, RestrictedGate
from trivet.server.grpc.transport import Gate as GrpcGate
from trivet.server.http.cors import Cors
from trivet.server.http.gate import Gate
from trivet.server.http.hosts import Hosts
from trivet.server.settings import Settings


class Security:
    """What guards the front rooms. Owned by the loop."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidConfig."""
        self._settings = settings
        keys_file = settings.auth_keys_file
        self.keyring = Keyring(Path(keys_file)) if keys_file else None
        """None: everybody may ask."""
        self.http_tls = http_tls(settings) if settings.allow_http else None
        self.grpc_tls = grpc_tls(settings) if settings.allow_grpc else None
        self.metrics_tls = metrics_tls(settings) if settings.allow_metrics else None
        self._watches = FileWatches()
        if self.keyring is not None:
            self._watches.add(FileWatch([self.keyring.path], self.keyring.reload))
        for tls in (self.http_tls, self.grpc_tls, self.metrics_tls):
            if tls is not None:
                self._watches.add(FileWatch(tls.files.paths, tls.reload))
        names, origins = settings.http_allowed_hosts, settings.http_cors_origins
        self._hosts = Hosts(names) if names else None
        self._cors = Cors(origins) if origins else None

        self._http_restrictions = Restrictions.parse(
            settings.http_restricted_api, "--http-restricted-api"
        )
        self._grpc_restrictions = Restrictions.parse(
            settings.grpc_restricted_protocol, "--grpc-restricted-protocol", RESTRICTED_PREFIX
        )

    def start(self) -> None:
        """Begins to watch files."""
        self._watches.start()

    def close(self) -> None:
        """Watches no more."""
        self._watches.close()

    def http_gate(self) -> Gate | None:
        """None: nothing is checked."""
        checks = (self.keyring, self._hosts, self._cors, self._http_restrictions)
        return None if checks == (None, None, None, None) else Gate(*checks)

    def grpc_gate(self) -> GrpcGate | None:
        """None: nothing is checked."""
        keys = None if self.keyring is None else KeyGate(self.keyring)
        if self._grpc_restrictions is None:
            return keys
        return RestrictedGate(self._grpc_restrictions, keys)

    def is_encrypted(self, service: str) -> bool:
        """Whether a service, by its name in the addresses, speaks TLS."""
        of = {"HTTP": self.http_tls, "gRPC": self.grpc_tls, "metrics": self.metrics_tls}
        return of[service] is not None
