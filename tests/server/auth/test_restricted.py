"""Which API every route and RPC belongs to: none is left out of what an operator restricts."""

import pytest

from trivet.backends.api import InvalidConfig
from trivet.server.auth.restricted import APIS, Restrictions, api_of
from trivet.server.auth.scopes import ROUTE_SCOPES, RPC_SCOPES, Scope


def routes_of(api: str) -> set[str]:
    return {t for (_, t), scope in ROUTE_SCOPES.items() if api_of(t, scope) == api}


def rpcs_of(api: str) -> set[str]:
    return {p.split("/")[-1] for p, scope in RPC_SCOPES.items() if api_of(p, scope) == api}


def test_whatever_computes_is_inference() -> None:
    assert routes_of("inference") == {
        template for (_, template), scope in ROUTE_SCOPES.items() if scope is Scope.INFER
    }
    assert rpcs_of("inference") == {"ModelInfer", "ModelStreamInfer"}


@pytest.mark.parametrize(
    ("api", "some"),
    [
        ("health", {"/v2/health/live", "/v2/models/{model}/ready", "/health", "/ping"}),
        ("metadata", {"/v2", "/v2/models/{model}", "/v1/models", "/version"}),
        ("model-config", {"/v2/models/{model}/config"}),
        ("statistics", {"/v2/models/stats", "/v2/models/{model}/stats"}),
        ("trace", {"/v2/trace/setting", "/v2/models/{model}/trace/setting"}),
        ("logging", {"/v2/logging"}),
        ("model-repository", {"/v2/repository/index", "/v2/repository/models/{model*}/load"}),
        ("shared-memory", {"/v2/systemsharedmemory/status", "/v2/cudasharedmemory/unregister"}),
    ],
)
def test_routes_are_grouped_as_in_triton(api: str, some: set[str]) -> None:
    assert some <= routes_of(api)


def test_rpcs_are_grouped_as_in_triton() -> None:
    found = {api: rpcs_of(api) for api in APIS}
    assert found["health"] == {"ServerLive", "ServerReady", "ModelReady", "Check"}
    assert found["metadata"] == {"ServerMetadata", "ModelMetadata"}
    assert found["model-config"] == {"ModelConfig"}
    assert found["statistics"] == {"ModelStatistics"}
    assert len(found["model-repository"]) == 3
    assert len(found["shared-memory"]) == 6
    assert found["trace"] | found["logging"] == {"TraceSetting", "LogSettings"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("trace:a=1", "logging,trace:b=2"), "API 'trace' is restricted twice"),
        (("trace:=1",), "is API,API:HEADER=VALUE"),
        (("trace:a=",), "is API,API:HEADER=VALUE"),
        (("Trace:a=1",), "unknown API 'Trace'"),
    ],
)
def test_a_wrong_text_is_named(given: tuple[str, ...], text: str) -> None:
    with pytest.raises(InvalidConfig, match=text):
        Restrictions.parse(given, "--http-restricted-api")
