"""Every route and every RPC has a scope, and whoever lacks it is turned away everywhere."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any

import grpc
import grpc.aio
import pytest
from auth_site import GuardedSite, Keys
from bad_input import case
from heard import hear
from http_site import FakeCore, all_routes
from patience import patience

from trivet.protos import grpc_service_pb2, health_pb2, releases_pb2
from trivet.server.auth.keyring import Keyring
from trivet.server.auth.scopes import Scope
from trivet.server.core import Core
from trivet.server.grpc.gate import KeyGate
from trivet.server.grpc.http2.options import Http2Options
from trivet.server.grpc.http2.server import Http2Transport
from trivet.server.grpc.service import Service
from trivet.server.grpc.transport import Rows, Stream, Unary
from trivet.server.http.routes import Route

HEALTH_ROUTES = {
    "/v2/health/live", "/v2/health/ready", "/v2/models/{model}/ready",
    "/v2/models/{model}/versions/{version}/ready", "/health", "/ping",
}  # fmt: skip
CONSOLE_ROUTES = {"/", "/docs", "/console/{region*}"}
"""Pages and their files, which are alike for everybody and hold no data."""
NAMES = {
    "model": "m", "model*": "m", "region*": "r",
    "version": 1, "region": "r", "response": "s",
}  # fmt: skip
HEALTH_RPCS = {"ServerLive", "ServerReady", "ModelReady", "Check"}


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    fake = FakeCore()
    yield fake
    fake.shared_memory.close()


@pytest.fixture(scope="module")
def routes() -> tuple[Route, ...]:
    """Every HTTP route."""
    return all_routes()


@pytest.fixture(scope="module")
def rows(core: Core) -> Rows:
    """Every RPC."""
    return Service(core).rows()


@pytest.mark.parametrize("kind", [Route, Unary, Stream])
def test_a_row_without_a_scope_or_an_api_cannot_be_made(kind: type[Any]) -> None:
    required = {each.name for each in fields(kind) if is_required(each)}
    assert {"scope", "api"} <= required


def is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def test_the_tables_hold_every_route_and_rpc(routes: tuple[Route, ...], rows: Rows) -> None:
    assert len({(route.method, route.template) for route in routes}) == len(routes) > 40
    assert len(rows) > 15


def test_every_rpc_of_the_protocol_is_served(rows: Rows) -> None:
    services = (
        grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        releases_pb2.DESCRIPTOR.services_by_name["Releases"],
    )
    declared = {f"/{each.full_name}/{method.name}" for each in services for method in each.methods}

    assert rows.keys() <= declared


def test_only_health_and_the_pages_of_the_console_are_open(
    routes: tuple[Route, ...], rows: Rows
) -> None:
    open_routes = {route.template for route in routes if route.scope is Scope.OPEN}
    open_rpcs = {path.rpartition("/")[2] for path in rows if rows[path].scope is Scope.OPEN}

    assert open_routes <= HEALTH_ROUTES | CONSOLE_ROUTES
    assert open_rpcs <= HEALTH_RPCS


def is_scope(name: str, scope: Scope) -> bool:
    """Whether the key of this name may call what asks for the scope."""
    return scope in (Scope.ANY, name)


async def statuses(
    routes: tuple[Route, ...], keys: Keys, callers: Callable[[Scope], list[str]]
) -> dict[tuple[str, str, str], int]:
    """What each guarded route answers to some callers; names that are no keys show none, or a
    stranger's."""
    strangers: dict[str, dict[str, str]] = {"nobody": {}, "stranger": {"x-api-key": "x"}}
    found = {}
    async with GuardedSite(Keyring(keys.path)) as site:
        for route in routes:
            for name in callers(route.scope) if route.scope is not Scope.OPEN else ():
                path = route.template.format(**NAMES)
                headers = keys.header(name) if name in keys.secrets else strangers[name]
                async with site.session.request(route.method, path, headers=headers) as answer:
                    found[route.method, route.template, name] = answer.status
    return found


@pytest.mark.rows("O43a")
async def test_http_turns_everyone_away_who_shows_no_key(
    routes: tuple[Route, ...], keys: Keys
) -> None:
    found = await statuses(routes, keys, lambda _: ["nobody", "stranger"])
    assert set(found.values()) == case("O43a").statuses


@pytest.mark.rows("O43b")
async def test_http_turns_everyone_away_who_lacks_the_scope(
    routes: tuple[Route, ...], keys: Keys
) -> None:
    found = await statuses(
        routes, keys, lambda scope: [name for name in keys.secrets if not is_scope(name, scope)]
    )
    assert set(found.values()) == case("O43b").statuses


async def test_http_lets_everyone_in_who_has_the_scope(
    routes: tuple[Route, ...], keys: Keys
) -> None:
    found = await statuses(
        routes, keys, lambda scope: [name for name in keys.secrets if is_scope(name, scope)]
    )
    assert [each for each, status in found.items() if status in (401, 403)] == []


@pytest.mark.rows("G19a", "G19b")
async def test_grpc_turns_everyone_away_who_lacks_the_scope(rows: Rows, keys: Keys) -> None:
    options = Http2Options(2**20, gate=KeyGate(Keyring(keys.path)))
    transport = Http2Transport(rows, host="127.0.0.1", port=0, options=options)
    port = await transport.start()
    wrong = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for path, name in itertools.product(rows, ("nobody", "stranger", *keys.secrets)):
            code = await code_of(channel, path, isinstance(rows[path], Stream), keys, name)
            hear(code=code.name)
            if code != expected_code(name, rows[path].scope, code):
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
