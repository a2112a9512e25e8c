"""Which API every route and RPC belongs to: none is left out of what an operator restricts."""

from typing import cast

import pytest
from http_site import FakeCore, all_routes

from trivet.backends.api import InvalidConfig
from trivet.server.auth.restricted import Api, Restrictions
from trivet.server.auth.scopes import Scope
from trivet.server.core import Core
from trivet.server.grpc.service import Service


def routes_of(api: str) -> set[str]:
    return {route.template for route in all_routes() if route.api == api}


@pytest.fixture(scope="module")
def rpcs() -> dict[str, set[str]]:
    """The names of the RPCs of each API."""
    rows = Service(cast(Core, FakeCore())).rows()
    return {api: {p.split("/")[-1] for p, row in rows.items() if row.api is api} for api in Api}


def test_whatever_computes_is_inference(rpcs: dict[str, set[str]]) -> None:
    assert routes_of("inference") == {
        route.template for route in all_routes() if route.scope is Scope.INFER
    }
    assert rpcs["inference"] == {"ModelInfer", "ModelStreamInfer", "Feedback"}


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


def test_rpcs_are_grouped_as_in_triton(rpcs: dict[str, set[str]]) -> None:
    found = rpcs
    assert found["health"] == {"ServerLive", "ServerReady", "ModelReady", "Check"}
    assert found["metadata"] == {"ServerMetadata", "ModelMetadata"}
    assert found["model-config"] == {"ModelConfig"}
    assert found["statistics"] == {"ModelStatistics"}
    assert found["model-repository"] == {
        *("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
        # Ours: who gets which version.
        *("Traffic", "SetTraffic", "ResetTraffic"),
        *("Rollouts", "Rollout", "RolloutHistory", "ChangeRollout"),
    }
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
