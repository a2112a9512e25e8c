"""Health, metadata, repository and shared memory routes beyond what tritonclient asks of them."""

from typing import Any

import pytest
from http_site import Site


async def ask(
    site: Site, method: str, path: str, json: Any = None, data: bytes | None = None
) -> tuple[int, Any]:
    async with site.session.request(method, path, json=json, data=data) as answer:
        is_empty = not await answer.read()
        return answer.status, None if is_empty else await answer.json()


async def test_health_bodies_are_those_of_the_open_protocol(site: Site) -> None:
    assert await ask(site, "GET", "/v2/health/live") == (200, {"live": True})
    assert await ask(site, "GET", "/v2/health/ready") == (200, {"ready": True})
    model_ready = (200, {"name": "simple", "ready": True})
    assert await ask(site, "GET", "/v2/models/simple/ready") == model_ready
    assert await ask(site, "GET", "/v2/models/simple/versions/1/ready") == model_ready


async def test_readiness_says_why_not(site: Site) -> None:
    site.core.ready = False
    assert await ask(site, "GET", "/v2/health/ready") == (400, {"ready": False})
    site.core.stopping = True
    assert await ask(site, "GET", "/v2/health/ready") == (503, {"ready": False})
    assert await ask(site, "GET", "/v2/health/live") == (200, {"live": True})
    assert (await ask(site, "GET", "/v2/models/x/ready"))[0] == 503


async def test_models_that_serve_are_listed(site: Site) -> None:
    assert await ask(site, "GET", "/v2/models") == (200, {"models": ["simple"]})


async def test_the_index_may_be_of_ready_models_only(site: Site) -> None:
    status, rows = await ask(site, "POST", "/v2/repository/index", {"ready": True})
    assert (status, [row["name"] for row in rows]) == (200, ["simple"])
    status, rows = await ask(site, "POST", "/v2/repository/index")
    assert (status, rows[1]) == (200, {"name": "never"})


@pytest.mark.parametrize(
    ("path", "json", "status", "text"),
    [
        ("index", {"ready": "yes"}, 400, "Invalid value for 'ready': expected a boolean"),
        ("index", [], 400, "expected a JSON object"),
        ("models/m/load", {"parameters": {"config": 3}}, 400, "'config' must be a string"),
        ("models/m/load", {"parameters": {"x": 3}}, 400, "unrecognized load parameter 'x'"),
        ("models/m/load", {"parameters": {"file:1/m": "eA"}}, 400, "is no base64"),
        ("models/m/load", {"parameters": {"file:1/m": 3}}, 400, "must hold the file's bytes"),
        ("models/m/load", {"parameters": 3}, 400, "'parameters' of the request must be an object"),
        ("models/m/unload", {"parameters": {"unload_dependents": 1}}, 400, "expected a boolean"),
        ("models/m/unload", {"parameters": {"x": 1}}, 400, "unrecognized unload parameter 'x'"),
        ("models/missing/unload", {}, 400, "no such model"),
        ("mine/index", {}, 501, "'repository_name' specification is not supported"),
        ("mine/models/m/load", {}, 501, "'repository_name' specification is not supported"),
    ],
)
async def test_wrong_commands_are_refused(
    site: Site, path: str, json: Any, status: int, text: str
) -> None:
    got_status, document = await ask(site, "POST", f"/v2/repository/{path}", json)
    assert got_status == status
    assert text in document["error"]
    assert site.core.control == []


@pytest.mark.parametrize(
    ("in_path", "name"),
    [
        ("..%2Fetc", "../etc"),
        ("a/b", "a/b"),
        ("", ""),
        ("%20", " "),
        ("a%00b", "a\0b"),
        ("model%2F", "model/"),
        ("%2Fetc%2Fpasswd", "/etc/passwd"),
    ],
)
async def test_strange_model_names_reach_the_core_as_they_are(
    site: Site, in_path: str, name: str
) -> None:
    head = f"POST /v2/repository/models/{in_path}/load HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    answer = await site.send_raw(f"{head}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert site.core.control == [("load", name, None)]


@pytest.mark.parametrize(
    ("json", "text"),
    [
        ({}, "has no 'key'"),
        ({"key": 3, "byte_size": 4}, "'key' of"),
        ({"key": "/x"}, "has no 'byte_size'"),
        ({"key": "/x", "byte_size": -1}, "'byte_size'"),
        ({"key": "/x", "byte_size": "4"}, "'byte_size'"),
        ({"key": "/x", "byte_size": 4, "offset": -1}, "'offset'"),
        ({"key": "///", "byte_size": 4}, "region 'r' - invalid shm key '///'"),
        ({"key": "/trivet-none", "byte_size": 4}, "Unable to open shared memory region"),
    ],
)
async def test_wrong_registrations_are_refused(site: Site, json: Any, text: str) -> None:
    path = "/v2/systemsharedmemory/region/r/register"
    status, document = await ask(site, "POST", path, json)
    assert status == 400
    assert text in document["error"]
    assert await ask(site, "GET", "/v2/systemsharedmemory/status") == (200, [])


async def test_unknown_regions_are_not_found(site: Site) -> None:
    for kind in ("system", "cuda"):
        status, document = await ask(site, "GET", f"/v2/{kind}sharedmemory/region/x/status")
        assert status == 404
        assert f"Unable to find {kind} shared memory region: 'x'" in document["error"]
