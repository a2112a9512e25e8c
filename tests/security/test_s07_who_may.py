"""S7: who may. No spelling of a request gets around the key, and no request hides in another.

Every route and RPC has its scope (`tests/server/auth/test_scopes.py`); paths, hosts and headers
that try to get around them are in `tests/server/auth/test_http_gate.py`; broken framing is rows
H01-H11.
"""

import asyncio

import pytest
from auth_site import GuardedSite, Keys
from patience import fires_after

from trivet.server.auth.keyring import Keyring

HIDDEN = b"GET /v2/models HTTP/1.1\r\nHost: x\r\n\r\n"
"""What an attacker would have the server take for a request of its own."""
POST = b"POST /v2/models/ident/infer HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SIZED = b"Content-Length: %d\r\n" % len(HIDDEN)
SMUGGLED = {
    "length and chunks": POST + SIZED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "chunks and length": POST + CHUNKED + SIZED + b"\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + b"Content-Length: 0\r\n" + SIZED + b"\r\n" + HIDDEN,
    "a list of lengths": POST + b"Content-Length: 0, %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "a signed length": POST + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a hexadecimal length": POST + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "space before the colon": POST + b"Content-Length : %d\r\n\r\n" % len(HIDDEN) + HIDDEN,
    "another coding": POST + b"Transfer-Encoding: xchunked\r\n" + SIZED + b"\r\n" + HIDDEN,
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked but not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a tab in the name": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a folded line": POST + b"X: y\r\n Transfer-Encoding: chunked\r\n" + SIZED + b"\r\n" + HIDDEN,
    "a NUL": POST + b"X: \0\r\n" + SIZED + b"\r\n" + HIDDEN,
    "a lone CR": POST + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + HIDDEN,
    "a negative chunk": POST + CHUNKED + b"\r\n-1\r\n" + HIDDEN,
    "a chunk size of words": POST + CHUNKED + b"\r\nzz\r\n" + HIDDEN,
    "a huge chunk size": POST + CHUNKED + b"\r\n" + b"f" * 20 + b"\r\n" + HIDDEN,
    "a chunk without its end": POST + CHUNKED + b"\r\n1\r\nxx0\r\n\r\n" + HIDDEN,
}  # fmt: skip


async def answers(site: GuardedSite, data: bytes) -> list[bytes]:
    """Every answer on one connection until the server closes it, or waits for more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(data)
    received = b""
    try:
        async with asyncio.timeout(fires_after(2)):
            while piece := await reader.read(1 << 16):
                received += piece
    except TimeoutError:
        pass
    writer.close()
    return [b"HTTP/1.1 " + part for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("how", SMUGGLED)
async def test_no_request_hides_in_another(how: str) -> None:
    """No key is asked for, so that a hidden request would be answered with the models."""
    async with GuardedSite() as site:
        found = await answers(site, SMUGGLED[how])
    assert len(found) <= 1, found
    assert not any(b" 200 " in each.partition(b"\r\n")[0] for each in found), found
    assert not any(b"simple" in each for each in found)


async def test_what_follows_a_refused_request_is_not_read_as_one(keys: Keys) -> None:
    """A stranger's body that looks like a request with a key is no request."""
    secret = keys.secrets["infer"].encode()
    inner = b"GET /v2/models HTTP/1.1\r\nHost: x\r\nx-api-key: %b\r\n\r\n" % secret
    outer = POST + b"Content-Length: %d\r\n\r\n" % len(inner) + inner
    async with GuardedSite(Keyring(keys.path)) as site:
        found = await answers(site, outer)
    assert [each.split()[1] for each in found] == [b"401"]


@pytest.mark.parametrize(
    "headers",
    [
        b"x-api-key: %b\r\nx-api-key: wrong\r\n",
        b"x-api-key: wrong\r\nx-api-key: %b\r\n",
        b"Authorization: Bearer wrong\r\nAuthorization: Bearer %b\r\n",
        b"Authorization: Bearer wrong\r\nx-api-key: %b\r\n",
        b"Authorization: Basic %b\r\n",
        b"Authorization: Bearer\r\n",
        b"Authorization: %b\r\n",
        b"X-Forwarded-User: admin\r\nX-Api-Key:\r\n",
        b"Cookie: key=%b\r\n",
        b"x-api_key: %b\r\n",
    ],
)
async def test_two_keys_or_odd_ones_are_no_key(keys: Keys, headers: bytes) -> None:
    """What one hop takes for the first another may take for the last."""
    given = headers.replace(b"%b", keys.secrets["infer"].encode())
    head = b"GET /v2/models HTTP/1.1\r\nHost: x\r\n%bConnection: close\r\n\r\n" % given
    async with GuardedSite(Keyring(keys.path)) as site:
        found = await answers(site, head)
    assert [each.split()[1] for each in found] == [b"401"]
    assert b"simple" not in found[0]


@pytest.mark.parametrize("query", ["api_key", "x-api-key", "key", "access_token"])
async def test_keys_in_the_path_do_not_count(keys: Keys, query: str) -> None:
    """They would end up in logs of everybody on the way."""
    target = f"/v2/models?{query}={keys.secrets['infer']}"
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with GuardedSite(Keyring(keys.path)) as site:
        found = await answers(site, head.encode())
    assert [each.split()[1] for each in found] == [b"401"]
