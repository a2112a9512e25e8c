"""Who may connect and ask, as the options say: keys, certificates, hosts. Watches their files."""

from pathlib import Path

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.server.auth.exposure import grpc_tls, http_tls, metrics_tls
from trivet.server.auth.file_watch import FileWatch, FileWatches
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.limits import whole_day_s
from trivet.server.auth.restricted import Restrictions
from trivet.server.cost.ledger import Ledger, day_left_s
from trivet.server.grpc.gate import RESTRICTED_PREFIX, KeyGate, RestrictedGate
from trivet.server.grpc.transport import Gate as GrpcGate
from trivet.server.http.cors import Cors
from trivet.server.http.gate import Gate
from trivet.server.http.hosts import Hosts
from trivet.server.settings import Settings
from trivet.server.sharing.exchange import UseExchange


class Security:
    """What guards the front rooms. Owned by the loop."""

    def __init__(self, settings: Settings, ledger: Ledger | None = None) -> None:
        """Raises InvalidConfig, and LoadFailed without `redis` where it is asked for."""
        self._settings = settings
        self.keyring = _keyring(settings)
        """None: everybody may ask."""
        self._exchange = _exchange(settings, self.keyring, ledger)
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
        """Begins to watch files, and to tell what keys use."""
        self._watches.start()
        if self._exchange is not None:
            self._exchange.start()

    async def close(self) -> None:
        """Watches no more, and tells what keys have used for the last time."""
        self._watches.close()
        if self._exchange is not None:
            await self._exchange.close()

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


def _keyring(settings: Settings) -> Keyring | None:
    if not settings.auth_keys_file:
        return None
    # Servers that count together need days that begin at the same time.
    day_lasts_s = day_left_s if settings.limits_redis else whole_day_s
    return Keyring(Path(settings.auth_keys_file), day_lasts_s=day_lasts_s)


def _exchange(
    settings: Settings, keyring: Keyring | None, ledger: Ledger | None
) -> UseExchange | None:
    url = settings.limits_redis
    if not url:
        return None
    if keyring is None:
        raise InvalidConfig("--limits-redis is about keys, and needs --auth-keys-file")
    try:
        from trivet.server.sharing.redis_totals import RedisTotals
    except ModuleNotFoundError:
        raise LoadFailed(
            "--limits-redis needs the package 'redis', which is not installed: "
            "pip install trivet[redis]"
        ) from None
    return UseExchange(RedisTotals(url), keyring, ledger)
