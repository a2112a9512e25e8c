"""The table of scopes: what each route and RPC asks of a key. What is not in it is denied."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Scope(StrEnum):
    """What a route asks of its caller. Keys have some of `infer`, `admin` and `metrics`."""

    OPEN = "open"
    """Nothing: probes have no keys."""
    ANY = "any"
    """A key of any scope: what there is, and how it does."""
    INFER = "infer"
    """Ask models."""
    ADMIN = "admin"
    """Change what the server does, or see into its memory."""
    METRICS = "metrics"
    """Read the Prometheus page."""


GRANTABLE = (Scope.INFER, Scope.ADMIN, Scope.METRICS)
_MODEL = "/v2/models/{model}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_SYSTEM, _CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
_REPOSITORY = "/v2/repository"
_GRPC = "/inference.GRPCInferenceService/"

_ROUTES: dict[Scope, tuple[tuple[str, str], ...]] = {
    Scope.OPEN: (
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", f"{_MODEL}/ready"),
        ("GET", f"{_VERSION}/ready"),
        ("GET", "/health"),
        ("GET", "/ping"),
        ("POST", "/ping"),
    ),
    Scope.ANY: (
        ("GET", "/v2"),
        ("GET", "/v2/"),
        ("GET", "/v2/models"),
        ("GET", "/v2/models/stats"),
        *(("GET", f"{path}{part}") for path in (_MODEL, _VERSION) for part in ("", "/config")),
        *(("GET", f"{path}/stats") for path in (_MODEL, _VERSION)),
        ("POST", f"{_REPOSITORY}/index"),
        ("POST", f"{_REPOSITORY}/{{region}}/index"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{model}"),
        ("GET", "/version"),
        ("GET", "/load"),
        ("GET", "/info"),
        ("GET", "/openapi.json"),
        ("GET", "/tokenizer_info"),
    ),
    Scope.INFER: (
        *(
            ("POST", f"{path}/{verb}")
            for path in (_MODEL, _VERSION)
            for verb in ("infer", "generate", "generate_stream")
        ),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("POST", "/chat_tokenize"),
        ("POST", "/"),
        ("POST", "/generate"),
        ("POST", "/generate_stream"),
    ),
    Scope.ADMIN: (
        *(("POST", f"{_REPOSITORY}/models/{{model*}}/{verb}") for verb in ("load", "unload")),
        *(
            ("POST", f"{_REPOSITORY}/{{region}}/models/{{model}}/{verb}")
            for verb in ("load", "unload")
        ),
        *(("GET", f"{memory}/status") for memory in (_SYSTEM, _CUDA)),
        *(("GET", f"{memory}/region/{{region}}/status") for memory in (_SYSTEM, _CUDA)),
        *(
            ("POST", f"{memory}/region/{{region}}/{verb}")
            for memory in (_SYSTEM, _CUDA)
            for verb in ("register", "unregister")
        ),
        *(("POST", f"{memory}/unregister") for memory in (_SYSTEM, _CUDA)),
        *((method, f"{_MODEL}/trace/setting") for method in ("GET", "POST")),
        *((method, "/v2/trace/setting") for method in ("GET", "POST")),
        *((method, "/v2/logging") for method in ("GET", "POST")),
    ),
    Scope.METRICS: (("GET", "/metrics"),),
}

_RPCS: dict[Scope, tuple[str, ...]] = {
    Scope.OPEN: (
        f"{_GRPC}ServerLive",
        f"{_GRPC}ServerReady",
        f"{_GRPC}ModelReady",
        "/grpc.health.v1.Health/Check",
    ),
    Scope.ANY: tuple(
        _GRPC + name
        for name in (
            "ServerMetadata",
            "ModelMetadata",
            "ModelConfig",
            "ModelStatistics",
            "RepositoryIndex",
        )
    ),
    Scope.INFER: (f"{_GRPC}ModelInfer", f"{_GRPC}ModelStreamInfer"),
    Scope.ADMIN: tuple(
        _GRPC + name
        for name in (
            "RepositoryModelLoad",
            "RepositoryModelUnload",
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
            "TraceSetting",
            "LogSettings",
        )
    ),
}

ROUTE_SCOPES: Mapping[tuple[str, str], Scope] = MappingProxyType(
    {route: scope for scope, routes in _ROUTES.items() for route in routes}
)
"""By method and template of the route table; the metrics page is a server of its own."""
RPC_SCOPES: Mapping[str, Scope] = MappingProxyType(
    {path: scope for scope, paths in _RPCS.items() for path in paths}
)
"""By full method path."""
