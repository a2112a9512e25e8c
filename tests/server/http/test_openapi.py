"""The OpenAPI document tells every route, and tells it as it is."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from auth_site import GuardedSite, Keys
from http_site import FakeCore, all_routes, open_site

from trivet.server.auth.keyring import Keyring
from trivet.server.auth.scopes import Scope
from trivet.server.http.openapi_document import describe
from trivet.server.http.routes import Route


@pytest.fixture(scope="module")
def routes() -> tuple[Route, ...]:
    return all_routes()


@pytest.fixture(scope="module")
def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(describe(routes)))
    return found


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    made = Keys(tmp_path / "keys.toml")
    made.add("metrics", "metrics")
    return made


def test_every_route_is_told_with_a_name_of_its_own(
    routes: tuple[Route, ...], document: dict[str, Any]
) -> None:
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(set(names)) == len(names) == len(routes)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + references(list(value.values()))
        parts = value if isinstance(value, list) else []
        return [found for each in parts for found in references(each)]

    found = set(references(document))
    assert found
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert found <= known


def test_what_needs_no_key_says_so(routes: tuple[Route, ...], document: dict[str, Any]) -> None:
    for route in routes:
        path = route.template.replace("*}", "}")
        told = document["paths"][path][route.method.lower()]["security"]
        assert (told == []) == (route.scope is Scope.OPEN), route


def test_fields_of_the_language_apis_are_those_that_are_read(document: dict[str, Any]) -> None:
    chat = document["components"]["schemas"]["ChatFields"]
    assert {"model", "messages", "temperature", "tools", "cache_salt"} <= chat["properties"].keys()
    assert set(chat["required"]) == {"model", "messages"}
    assert chat["properties"]["top_p"]["anyOf"][0]["maximum"] == 1


async def test_the_document_is_served_to_any_key(keys: Keys) -> None:
    async with GuardedSite(Keyring(keys.path)) as site:
        async with site.session.get("/openapi.json") as answer:
            assert answer.status == 401
        async with site.session.get("/openapi.json", headers=keys.header("metrics")) as answer:
            assert answer.status == 200
            assert (await answer.json())["openapi"] == "3.1.0"


async def test_the_document_is_the_same_each_time() -> None:
    site = await open_site(FakeCore())
    try:
        texts = [await text_of(site.session) for _ in range(2)]
    finally:
        await site.close()
    assert texts[0] == texts[1]


async def text_of(session: aiohttp.ClientSession) -> str:
    async with session.get("/openapi.json") as answer:
        return await answer.text()
