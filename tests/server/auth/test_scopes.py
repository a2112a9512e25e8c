"""Every route and every RPC has a scope, and whoever lacks it is turned away everywhere."""

import itertools
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest
from auth_site import GuardedSite, Keys
from http_site import FakeCore
from patience import patience

from trivet.protos import grpc_service_pb2, health_pb2
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.scopes import ROUTE_SCOPES, RPC_SCOPES, Scope
from trivet.server.core import Core
from trivet.server.grpc.gate import KeyGate
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.service import Service
from trivet.server.grpc.transport import Rows, Stream
from trivet.server.http.app import HttpLimits, build_routes
from trivet.server.metrics.page import MetricsServer
from trivet.server.settings import Settings

HEALTH_ROUTES = {
    "/v2/health/live", "/v2/health/ready", "/v2/models/{model}/ready",
    "/v2/models/{model}/versions/{version}/ready", "/health", "/ping",
}  # fmt: skip
HEALTH_RPCS = {"ServerLive", "ServerReady", "ModelReady", "Check"}


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    fake = FakeCore()
    yield fake
    fake.shared_memory.close()


@pytest.fixture(scope="module")
def routes(core: Core) -> list[tuple[str, str]]:
    """Method and template of every HTTP route."""
    return [(route.method, route.template) for route in build_routes(core, HttpLimits()).routes]


@pytest.fixture(scope="module")
def rows(core: Core) -> Rows:
    """Every RPC."""
    return Service(core).rows()


def test_every_route_has_a_scope(routes: list[tuple[str, str]]) -> None:
    assert len(routes) > 40
    assert [route for route in routes if route not in ROUTE_SCOPES] == []


def test_every_rpc_has_a_scope(rows: Rows) -> None:
    assert len(rows) > 15
    assert [path for path in rows if path not in RPC_SCOPES] == []


def test_every_rpc_of_the_protocol_is_served(rows: Rows) -> None:
    services = (
        grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
    )
    declared = {f"/{each.full_name}/{method.name}" for each in services for method in each.methods}

    assert rows.keys() <= declared


async def test_every_route_of_the_metrics_port_has_a_scope(core: Core, keys: Keys) -> None:
    settings = Settings(metrics_port=0)
    server = MetricsServer(core, settings, keyring=Keyring(keys.path))
    await server.start()
    try:
        found = [(each.method, each.resource.canonical) for each in server.routes if each.resource]
    finally:
        await server.close()
    assert found
    assert [route for route in found if route not in ROUTE_SCOPES] == []


def test_only_health_is_open(routes: list[tuple[str, str]], rows: Rows) -> None:
    open_routes = {template for m, template in routes if ROUTE_SCOPES[m, template] is Scope.OPEN}
    open_rpcs = {path.rpartition("/")[2] for path in rows if RPC_SCOPES[path] is Scope.OPEN}

    assert open_routes <= HEALTH_ROUTES
    assert open_rpcs <= HEALTH_RPCS


@pytest.mark.rows("O43")
async def test_http_turns_everyone_away_who_lacks_the_scope(
    routes: list[tuple[str, str]], keys: Keys
) -> None:
    guarded = [route for route in routes if ROUTE_SCOPES[route] is not Scope.OPEN]
    callers = {"nobody": {}, "stranger": {"x-api-key": "x"}, **dict.fromkeys(keys.secrets)}
    wrong = []
    async with GuardedSite(Keyring(keys.path)) as site:
        for (method, template), name in itertools.product(guarded, callers):
            path = template.format(**{"model": "m", "model*": "m", "version": 1, "region": "r"})
            headers = keys.header(name) if name in keys.secrets else callers[name]
            async with site.session.request(method, path, headers=headers) as answer:
                status = answer.status
            if status != expected_status(name, ROUTE_SCOPES[method, template], status):
                wrong.append((method, template, name, status))
    assert wrong == []


def expected_status(name: str, scope: Scope, given: int) -> int:
    """401 and 403 where they are due; else whatever else was given."""
    if name in ("nobody", "stranger"):
        return 401
    if scope not in (Scope.ANY, name):
        return 403
    return given if given not in (401, 403) else 200


@pytest.mark.rows("G19")
async def test_grpc_turns_everyone_away_who_lacks_the_scope(rows: Rows, keys: Keys) -> None:
    options = Http2Options(2**20, gate=KeyGate(Keyring(keys.path)))
    transport = Http2Transport(rows, host="127.0.0.1", port=0, options=options)
    port = await transport.start()
    wrong = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for path, name in itertools.product(rows, ("nobody", "stranger", *keys.secrets)):
            code = await code_of(channel, path, isinstance(rows[path], Stream), keys, name)
            if code != expected_code(name, RPC_SCOPES[path], code):
                wrong.append((path, name, code))
    await transport.drain(0)
    assert wrong == []


async def code_of(
    channel: grpc.aio.Channel, path: str, is_stream: bool, keys: Keys, name: str
) -> grpc.StatusCode:
    """How an empty request ends."""
    secret = keys.secrets.get(name, "x")
    metadata = None if name == "nobody" else (("authorization", f"Bearer {secret}"),)
    try:
        if is_stream:
            async for _ in channel.stream_stream(path)(
                iter(()), metadata=metadata, timeout=patience()
            ):
                pass
        else:
            await channel.unary_unary(path)(b"", metadata=metadata, timeout=patience())
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def expected_code(name: str, scope: Scope, given: grpc.StatusCode) -> grpc.StatusCode:
    """As for HTTP."""
    turned_away = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
    if scope is not Scope.OPEN:
        if name in ("nobody", "stranger"):
            return turned_away[0]
        if scope not in (Scope.ANY, name):
            return turned_away[1]
    return given if given not in turned_away else grpc.StatusCode.OK
