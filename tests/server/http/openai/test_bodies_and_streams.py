"""Media types, and streams that have nothing to say for a while."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import aiohttp
import pytest
from scripted_model import ScriptedModel, served

from trivet.backends.api import Chunk, Finish, GenerateRequest, Sampling
from trivet.server.http.generation import Outputs
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.events import KEEP_ALIVE, error_event, pump
from trivet.server.http.sse import EventStream

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


class Written:
    """Stands for a stream of events."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    async def open(self) -> None:
        pass

    async def write(self, data: bytes) -> None:
        self.data.append(data)


async def test_stream_says_that_it_lives_while_what_comes_is_held_back() -> None:
    outputs, events = Outputs(), Written()
    held: list[bytes] = []

    def hold(chunks: Sequence[tuple[int, Chunk]]) -> bytes:
        # Whatever comes is followed by more at once, and told at the end.
        if chunks[-1][1].finish:
            return b"told"
        time.sleep(0.001)
        held.append(b"a")
        is_last = len(events.data) >= 2 or len(held) == 1000
        outputs.put(0, Chunk("a", (1,), finish=Finish("stop") if is_last else None))
        return b""

    model = ScriptedModel()
    model.waits_for = asyncio.Event()
    outputs.start(model, GenerateRequest("r", (1,), Sampling()))
    outputs.put(0, Chunk("a", (1,)))
    stream = cast(EventStream, events)
    assert await pump(stream, outputs, hold, error_event, 0.01)
    *signs, last = events.data
    assert (set(signs), last) == ({KEEP_ALIVE}, b"told")
    assert len(signs) > 1


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
