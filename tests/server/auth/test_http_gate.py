"""What a client sees of keys, hosts and CORS over HTTP."""

import asyncio
from typing import Any

import pytest
from auth_site import Clock, GuardedSite, Keys
from bad_input import case
from heard import hear_bytes
from patience import patience
from row_marks import shows

from trivet.backends.api import InvalidConfig
from trivet.server.auth.keyring import Keyring
from trivet.server.http.cors import Cors

INFER = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1.0]}]}
PATH = "/v2/models/ident/infer"


async def test_a_key_works_in_both_headers(keys: Keys) -> None:
    secret = keys.secrets["infer"]
    async with GuardedSite(Keyring(keys.path)) as site:
        for headers in ({"Authorization": f"Bearer {secret}"}, {"x-api-key": secret}):
            async with site.session.post(PATH, json=INFER, headers=headers) as answer:
                assert answer.status == 200, await answer.text()


async def test_health_is_open(keys: Keys) -> None:
    async with GuardedSite(Keyring(keys.path)) as site:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/ident/ready"):
            async with site.session.get(path) as answer:
                assert answer.status == 200


@pytest.mark.rows("O01")
@pytest.mark.parametrize(
    "path", [PATH, "/v1/chat/completions", "/generate", "/v2/repository/index"]
)
async def test_a_refusal_tells_how_to_show_a_key(keys: Keys, path: str) -> None:
    async with GuardedSite(Keyring(keys.path)) as site, site.session.post(path) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "Authorization: Bearer KEY" in await answer.text()


@pytest.mark.more_of("O01")
async def test_errors_have_the_form_of_the_api_that_was_asked(keys: Keys) -> None:
    stranger = {"Authorization": "Bearer sk-stranger"}
    errors: dict[str, Any] = {}
    async with GuardedSite(Keyring(keys.path)) as site:
        for path in (PATH, "/v1/completions", "/generate"):
            async with site.session.post(path, headers=stranger) as answer:
                errors[path] = await answer.json()
        async with site.session.post("/v1/completions", headers=keys.header("admin")) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["code"] == "insufficient_permissions"
    text = "Incorrect API key provided; the server does not know it (any more)"
    assert errors[PATH] == {"error": text}
    assert errors["/generate"] == {"error": text, "error_type": "authentication"}
    assert errors["/v1/completions"]["error"] == {
        "message": text,
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


@pytest.mark.more_of("H08", "H10", "H11")
@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/v2/models", "x/v2/health/live?"),
        ("/v2/models", "x%2fv2%2fhealth%2flive"),
        ("/v2/health/../models", "x"),
        ("/v2/health/live/../../models", "x"),
        ("/v2/health%2flive/../models", "x"),
        ("//v2/models", "x"),
        ("/v2/models?path=/v2/health/live", "x"),
        ("/v2/models#/v2/health/live", "x"),
        ("/%76%32/models", "x"),
        ("/v2/models/", "x"),
        ("http://x/v2/models", "x"),
        ("http://x/v2/health/live/../models", "x"),
    ],
)
async def test_no_spelling_of_a_path_or_host_gets_around_the_key(
    keys: Keys, path: str, host: str
) -> None:
    async with GuardedSite(Keyring(keys.path)) as site:
        answer = await send_raw(
            site, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        )
    assert answer.split()[1] in (b"400", b"401", b"404")
    assert b"ident" not in answer


@pytest.mark.parametrize(
    "header", ["X-HTTP-Method-Override: GET", "X-Original-URL: /v2/health/live"]
)
async def test_no_header_makes_another_request_of_it(keys: Keys, header: str) -> None:
    head = f"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n"
    async with GuardedSite(Keyring(keys.path)) as site:
        assert (await send_raw(site, head.encode())).startswith(b"HTTP/1.1 401")


async def test_two_authorization_headers_are_refused(keys: Keys) -> None:
    line = f"Authorization: Bearer {keys.secrets['infer']}\r\n"
    head = f"GET /v2/models HTTP/1.1\r\nHost: x\r\n{line}{line}Connection: close\r\n\r\n"
    async with GuardedSite(Keyring(keys.path)) as site:
        assert (await send_raw(site, head.encode())).startswith(b"HTTP/1.1 401")


@pytest.mark.rows("H27")
async def test_a_stranger_who_announces_a_large_body_is_not_told_to_go_on(keys: Keys) -> None:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n"
        "Expect: 100-continue\r\nx-api-key: wrong\r\n\r\n"
    )
    async with GuardedSite(Keyring(keys.path)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(head.encode())
        async with asyncio.timeout(patience()):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    hear_bytes(answer)
    assert b"100 Continue" not in answer
    assert b"Connection: close" in answer


@pytest.mark.rows("O41a")
async def test_a_long_header_is_refused_whatever_is_in_it(keys: Keys) -> None:
    size = case("O41a").numbers[0] * 1000
    head = f"GET /v2/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {'a' * size}\r\n\r\n"
    async with GuardedSite(Keyring(keys.path)) as site:
        await send_raw(site, head.encode())


@pytest.mark.rows("O41b")
async def test_a_token_of_another_system_is_an_unknown_key(
    keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."  # {"alg": "none"}
    header = {"Authorization": f"Bearer {token}"}
    async with (
        GuardedSite(Keyring(keys.path)) as site,
        site.session.get("/v2/models", headers=header),
    ):
        pass
    assert token not in caplog.text


@pytest.mark.rows("O46")
async def test_over_its_rate_a_key_is_told_when_to_come_back(keys: Keys) -> None:
    keys.add("slow", "infer", more="requests_per_second = 0.2")
    clock = Clock()
    async with GuardedSite(Keyring(keys.path, monotonic=clock)) as site:
        header = keys.header("slow")
        async with site.session.post(PATH, json=INFER, headers=header) as answer:
            assert answer.status == 200
            assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        async with site.session.post(PATH, json=INFER, headers=header) as answer:
            assert answer.headers["Retry-After"] == "5"
            assert answer.headers["x-ratelimit-reset-requests"] == "5s"
            assert "0.2 requests per second" in (await answer.json())["error"]
        async with site.session.post("/v1/completions", json={}, headers=header) as answer:
            error = (await answer.json())["error"]
            assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        async with site.session.post(PATH, json=INFER, headers=keys.header("infer")) as answer:
            assert answer.status == 200
        clock.now_s += 5
        async with site.session.post(PATH, json=INFER, headers=header) as answer:
            assert answer.status == 200


# -- hosts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("api.example.com", 200),
        ("API.example.com:8000", 200),
        ("a.b.internal", 200),
        ("[::1]:8000", 200),
        ("internal", 403),
        ("evil.com", 403),
        ("api.example.com.evil.com", 403),
        ("127.0.0.1", 403),
    ],
)
async def test_only_named_hosts_are_served(host: str, status: int) -> None:
    names = ("api.example.com", "*.internal", "::1")
    async with (
        GuardedSite(hosts=names) as site,
        site.session.get("/v2", headers={"Host": host}) as answer,
    ):
        assert answer.status == status


async def test_probes_reach_health_under_any_name() -> None:
    async with (
        GuardedSite(hosts=("api.example.com",)) as site,
        site.session.get("/v2/health/live", headers={"Host": "10.2.3.4:8000"}) as answer,
    ):
        assert answer.status == 200


async def test_a_request_without_a_host_is_for_none_of_the_names() -> None:
    async with GuardedSite(hosts=("api.example.com",)) as site:
        assert (await send_raw(site, b"GET /v2 HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 403") or (
            await send_raw(site, b"GET /v2 HTTP/1.0\r\n\r\n")
        ).startswith(b"HTTP/1.1 403")


# -- pages of other sites ------------------------------------------------------------------------

PAGE = "https://app.example.com"
LOAD = "/v2/repository/models/ident/load"


async def test_a_known_page_may_ask_and_read(keys: Keys) -> None:
    wish = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }
    async with GuardedSite(Keyring(keys.path), origins=(PAGE,)) as site:
        async with site.session.options(PATH, headers=wish) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            assert answer.headers["Access-Control-Allow-Headers"] == "authorization, content-type"
        headers = {**keys.header("infer"), "Origin": PAGE}
        async with site.session.post(PATH, json=INFER, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            assert answer.headers["Vary"] == "Origin"
        async with site.session.post(PATH, json=INFER, headers={"Origin": PAGE}) as answer:
            # The page must be able to read why.
            assert answer.status == 401
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE


async def test_a_stream_may_be_read_by_a_known_page() -> None:
    body = {"text_input": "x"}
    async with (
        GuardedSite(origins=(PAGE,)) as site,
        site.session.post(
            "/v2/models/llm/generate_stream", json=body, headers={"Origin": PAGE}
        ) as answer,
    ):
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE


@pytest.mark.parametrize("origin", ["https://evil.com", "null", "http://app.example.com", ""])
async def test_a_strangers_page_gets_no_permission(origin: str) -> None:
    wish = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with GuardedSite(origins=(PAGE,)) as site:
        async with site.session.options(PATH, headers=wish) as answer:
            assert answer.status == 405
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with site.session.post(PATH, json=INFER, headers={"Origin": origin}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("origins", "hosts", "origin", "host", "status"),
    [
        shows("H32", (), (), "https://evil.com", "localhost:8000", 403),
        shows("H32", (), (), "http://evil.com:8000", "evil.com:8000", 403),  # a name rebound to us
        ((), (), "http://localhost:8000", "localhost:8000", 200),
        ((), (), "http://127.0.0.1:8000", "127.0.0.1:8000", 200),
        ((), ("api.example.com",), "https://api.example.com", "api.example.com", 200),
        ((PAGE,), (), PAGE, "localhost:8000", 200),
        shows("H32", ("*",), (), "https://evil.com", "localhost:8000", 403),
    ],
)
async def test_only_our_own_and_known_pages_change_the_server(
    origins: tuple[str, ...], hosts: tuple[str, ...], origin: str, host: str, status: int
) -> None:
    async with (
        GuardedSite(origins=origins, hosts=hosts) as site,
        site.session.post(LOAD, headers={"Origin": origin, "Host": host}) as answer,
    ):
        assert answer.status == status, await answer.text()


async def test_all_pages_may_read_where_all_are_allowed() -> None:
    async with (
        GuardedSite(origins=("*",)) as site,
        site.session.get("/v2", headers={"Origin": "https://anyone.com"}) as answer,
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("origin", ["example.com", "https://example.com/", "https://", ""])
def test_what_no_browser_sends_as_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(InvalidConfig, match="an origin is scheme, host and port"):
        Cors((origin,))


async def send_raw(site: GuardedSite, data: bytes) -> bytes:
    """All that is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(data)
    async with asyncio.timeout(patience()):
        answer = await reader.read()
    writer.close()
    hear_bytes(answer, is_closed=True)
    return answer
