"""What the options say about security, checked before anything listens."""

import ipaddress
from pathlib import Path

from trivet.backends.api import InvalidConfig
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.tls import Tls, TlsFiles
from trivet.server.settings import Settings


def http_tls(settings: Settings) -> Tls | None:
    """The HTTP port's certificate; None: plain text. Raises InvalidConfig."""
    return _tls(
        "HTTP", "http-tls", settings.http_tls_cert, settings.http_tls_key,
        settings.http_tls_client_ca,
    )  # fmt: skip


def metrics_tls(settings: Settings) -> Tls | None:
    """The metrics port's."""
    return _tls(
        "metrics", "metrics-tls", settings.metrics_tls_cert, settings.metrics_tls_key,
        settings.metrics_tls_client_ca,
    )  # fmt: skip


def grpc_tls(settings: Settings) -> Tls | None:
    """The gRPC port's, by Triton's flags."""
    is_mutual = settings.grpc_use_ssl_mutual
    if not (settings.grpc_use_ssl or is_mutual):
        return None
    if not settings.grpc_server_cert or not settings.grpc_server_key:
        raise InvalidConfig("--grpc-use-ssl needs --grpc-server-cert and --grpc-server-key")
    if is_mutual and not settings.grpc_root_cert:
        raise InvalidConfig("--grpc-use-ssl-mutual needs --grpc-root-cert")
    root = Path(settings.grpc_root_cert) if is_mutual else None
    cert, key = Path(settings.grpc_server_cert), Path(settings.grpc_server_key)
    return Tls(TlsFiles("gRPC", cert, key, root), "h2")


def _tls(service: str, flags: str, cert: str, key: str, client_ca: str) -> Tls | None:
    if not (cert or key or client_ca):
        return None
    if not (cert and key):
        raise InvalidConfig(f"--{flags}-cert and --{flags}-key go together; one is missing")
    root = Path(client_ca) if client_ca else None
    return Tls(TlsFiles(service, Path(cert), Path(key), root), "http/1.1")


def refuse_budgets(keyring: Keyring | None, settings: Settings) -> None:
    """A budget that nothing is charged to would be none. Raises InvalidConfig."""
    if keyring is not None and keyring.has_budgets and not settings.prices:
        raise InvalidConfig(
            f"{keyring.path}: a key has 'cost_per_day', and requests cost nothing without --prices"
        )


def refuse_exposure(settings: Settings) -> None:
    """Raises InvalidConfig where other machines could ask without showing who they are."""
    if settings.auth_keys_file or settings.allow_unauthenticated:
        return
    rooms = (
        ("http", settings.allow_http, settings.http_address, bool(settings.http_tls_client_ca)),
        ("grpc", settings.allow_grpc, settings.grpc_address, settings.grpc_use_ssl_mutual),
        (
            "metrics",
            settings.allow_metrics,
            settings.metrics_address,
            bool(settings.metrics_tls_client_ca),
        ),
    )
    for name, is_allowed, address, asks_for_certificates in rooms:
        if is_allowed and not asks_for_certificates and not is_loopback(address):
            raise InvalidConfig(
                f"--{name}-address {address or '(all)'} lets other machines in, and nobody would "
                "have to show a key: give --auth-keys-file (see `trivet keys create --help`), or "
                "start with --allow-unauthenticated if something in front of the server guards it"
            )


def is_loopback(address: str) -> bool:
    """Whether only this machine can connect to it."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address.lower() == "localhost"
