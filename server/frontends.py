"""The front rooms of one server: starts them together, drains them together."""

import asyncio

from trivet.backends.device.nvml import Gpus
from trivet.server.auth.exposure import refuse_budgets, refuse_exposure
from trivet.server.cache.entry import Cache
from trivet.server.console.room import ConsoleRoom
from trivet.server.core import Core
from trivet.server.cost.ledger import Ledger
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.service import Service
from trivet.server.http.app import HttpLimits, HttpServer
from trivet.server.http.compression import LEVELS
from trivet.server.http.limits import JsonLimits
from trivet.server.metrics.custom import CustomMetrics
from trivet.server.metrics.page import MetricsServer
from trivet.server.protocol.forwarding import forwarding
from trivet.server.security import Security
from trivet.server.settings import Settings


class Frontends:
    """HTTP, gRPC and the metrics page, as far as the settings allow them. Owned by the loop."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        cache: Cache | None = None,
        gpus: Gpus | None = None,
        custom: CustomMetrics | None = None,
        ledger: Ledger | None = None,
        console: ConsoleRoom | None = None,
    ) -> None:
        """`cache`, `gpus`, `custom` and `ledger` are those that the metrics page shows; without
        `console` there is none. Raises InvalidConfig."""
        refuse_exposure(settings)
        self._core = core
        self._cache = cache
        self._gpus = gpus
        self._custom = custom
        self._ledger = ledger
        self._console = console
        self._settings = settings
        self._http: HttpServer | None = None
        self._grpc: Http2Transport | None = None
        self._metrics: MetricsServer | None = None
        self._security = Security(settings, ledger)
        refuse_budgets(self._security.keyring, settings)
        self.addresses: dict[str, str] = {}
        """Where each service listens, by its name: HTTP, gRPC, metrics."""

    async def start(self) -> None:
        """Listens. Raises OSError naming service and address where one is taken."""
        settings, security = self._settings, self._security
        if self._console is not None:
            self._console.start(self._core)
        if settings.allow_http:
            self._http = HttpServer(
                self._core,
                self._http_limits(),
                settings.http_address,
                settings.http_port,
                gate=security.http_gate(),
                tls=security.http_tls,
                forwarding=forwarding(
                    settings.http_header_forward_pattern, "--http-header-forward-pattern"
                ),
                console=self._console,
            )
            self._note("HTTP", settings.http_address, await self._http.start())
        if settings.allow_grpc:
            self._grpc = Http2Transport(
                Service(
                    self._core,
                    forwarding(
                        settings.grpc_header_forward_pattern, "--grpc-header-forward-pattern"
                    ),
                    settings.max_response_size,
                ).rows(),
                host=settings.grpc_address,
                port=settings.grpc_port,
                options=self._grpc_options(),
                tls=security.grpc_tls,
            )
            self._note("gRPC", settings.grpc_address, await self._grpc.start())
        if settings.allow_metrics:
            self._metrics = MetricsServer(
                self._core,
                settings,
                self._cache,
                custom=self._custom,
                gpus=self._gpus,
                keyring=security.keyring,
                tls=security.metrics_tls,
                ledger=self._ledger,
            )
            self._note("metrics", settings.metrics_address, await self._metrics.start())
        security.start()

    async def prepare(self) -> None:
        """The models of the start are loaded: imports what their clients will ask for."""
        if self._http is not None:
            await self._http.prepare()

    def _http_limits(self) -> HttpLimits:
        settings = self._settings
        return HttpLimits(
            max_body_bytes=settings.http_max_input_size,
            max_response_bytes=settings.max_response_size,
            json=JsonLimits(settings.http_max_json_depth, settings.http_max_json_values),
            max_connections=settings.http_max_connections,
            max_stored_responses=settings.response_store_count,
            max_stored_response_bytes=settings.response_store_size,
            head_timeout_s=settings.http_header_timeout_s,
            body_idle_timeout_s=settings.http_body_timeout_s,
            compression_level=LEVELS[settings.http_response_compression_level],
        )

    def _grpc_options(self) -> Http2Options:
        settings = self._settings
        return Http2Options(
            max_message_bytes=settings.grpc_max_message_size,
            max_connections=settings.grpc_max_connections,
            gzip_level=LEVELS[settings.grpc_infer_response_compression_level],
            keepalive_s=settings.grpc_keepalive_time / 1000,
            keepalive_timeout_s=settings.grpc_keepalive_timeout / 1000,
            pings_idle=settings.grpc_keepalive_permit_without_calls,
            max_pings_without_data=settings.grpc_http2_max_pings_without_data,
            min_ping_interval_s=settings.grpc_http2_min_recv_ping_interval_without_data / 1000,
            max_ping_strikes=settings.grpc_http2_max_ping_strikes,
            max_connection_age_s=settings.grpc_max_connection_age / 1000,
            max_connection_age_grace_s=settings.grpc_max_connection_age_grace / 1000,
            gate=self._security.grpc_gate(),
        )

    def _note(self, service: str, host: str, port: int) -> None:
        is_encrypted = self._security.is_encrypted(service)
        scheme = "" if service == "gRPC" else "https://" if is_encrypted else "http://"
        path = "/metrics" if service == "metrics" else ""
        self.addresses[service] = f"{scheme}{host}:{port}{path}"

    def leave(self) -> None:
        """Tells HTTP clients with each answer to connect anew: to another server, perhaps. gRPC's
        are told when it drains, which loses no call."""
        if self._http is not None:
            self._http.leave()

    async def drain(self, timeout_s: float) -> None:
        """Takes nothing new and lets what is in progress end, for up to `timeout_s`."""
        rooms = [room for room in (self._http, self._grpc) if room is not None]
        await asyncio.gather(*(room.drain(timeout_s) for room in rooms))

    async def close(self) -> None:
        """Closes what is still open."""
        await self._security.close()
        if self._console is not None:
            await self._console.close()
        for room in (self._http, self._metrics):
            if room is not None:
                await room.close()
