"""Media types, and streams that have nothing to say for a while."""

import asyncio
from typing import Any

import aiohttp
import pytest
from scripted_model import ScriptedModel, served

from trivet.server.http.limits import HttpLimits

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "m", "prompt": "a"},
    "/generate_stream": {"inputs": "a"},
}


@pytest.mark.parametrize("path", BODIES)
async def test_stream_says_that_it_lives_until_text_comes(path: str) -> None:
    model = ScriptedModel()
    model.waits_for = asyncio.Event()
    async with (
        served({"m": model}, HttpLimits(event_keep_alive_s=0.05)) as url,
        aiohttp.ClientSession() as session,
        session.post(url + path, json={**BODIES[path], "stream": True}) as answer,
    ):
        assert answer.status == 200
        for _ in range(3):
            assert await answer.content.readuntil(b"\n\n") == b": keep-alive\n\n"
        model.waits_for.set()
        rest = await answer.content.read()
    assert rest.replace(b": keep-alive\n\n", b"").startswith(b"data: {")
    assert b"Hello" in rest


async def test_stream_that_speaks_needs_no_sign_of_life() -> None:
    async with (
        served({"m": ScriptedModel()}, HttpLimits(event_keep_alive_s=30)) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json={**CHAT, "stream": True}) as answer,
    ):
        assert b"keep-alive" not in await answer.read()


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 415),
        ("multipart/form-data; boundary=a", 415),
        ("application/octet-stream", 415),
    ],
)
async def test_bodies_must_be_json_and_say_so(kind: str, status: int) -> None:
    async with served({"m": ScriptedModel()}) as url, aiohttp.ClientSession() as session:
        for path in ("/v1/chat/completions", "/v1/completions"):
            body = aiohttp.JsonPayload(BODIES[path])
            headers = {"Content-Type": kind}
            async with session.post(url + path, data=body, headers=headers) as answer:
                assert answer.status == status
                if status == 415:
                    assert kind.partition(";")[0] in (await answer.json())["error"]
