"""Requests of all kinds leave no object behind in the server, however they end."""

import asyncio
import gc
import tracemalloc
from typing import Any

import aiohttp
from scripted_model import ScriptedModel, served

from trivet.server.http.app import HttpLimits

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
RESPONSE: dict[str, Any] = {"model": "m", "input": "a"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions", {**CHAT, "stream": True, "n": 2}),
    ("/v1/chat/completions", {**CHAT, "stream": True, "tools": TOOLS}),
    ("/v1/chat/completions", {**CHAT, "temperature": -1}),
    ("/v1/responses", RESPONSE),
    ("/v1/responses", {**RESPONSE, "stream": True}),
    ("/v1/responses", {**RESPONSE, "stream": True, "background": True}),
    ("/v1/responses", {**RESPONSE, "previous_response_id": "resp_1"}),
    ("/v1/completions", {"model": "m", "prompt": ["a", "b"], "stream": True}),
    ("/v1/messages", {**CHAT, "max_tokens": 5}),
    ("/v1/messages", {**CHAT, "max_tokens": 5, "stream": True}),
    ("/v1/completions", {"model": "unknown", "prompt": "a"}),
    ("/generate", {"inputs": "a"}),
    ("/generate_stream", {"inputs": "a"}),
]
LIMITS = HttpLimits(max_stored_responses=4)
ALLOWED_BYTES = 256 * 1024
"""330 bytes for each of the requests that are looked at; one of them held would be more."""


async def ask(url: str, session: aiohttp.ClientSession, count: int) -> None:
    for number in range(count):
        path, body = KINDS[number % len(KINDS)]
        async with session.post(url + path, json=body) as answer:
            if number % 9:
                await answer.read()
            else:
                # Left before its end.
                answer.close()


async def test_requests_leave_no_object_behind() -> None:
    async with (
        served({"m": ScriptedModelWithoutMemory()}, LIMITS) as url,
        aiohttp.ClientSession() as session,
    ):
        tracemalloc.start()
        try:
            await ask(url, session, 240)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await asyncio.gather(*(ask(url, session, 200) for _ in range(4)))
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < ALLOWED_BYTES
        finally:
            tracemalloc.stop()


class ScriptedModelWithoutMemory(ScriptedModel):
    """Forgets what it was asked."""

    def generate(self, request: Any, sink: Any) -> None:
        super().generate(request, sink)
        self.requests.clear()
        self.rendered.clear()
