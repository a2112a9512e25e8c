"""Clients made for servers of one model name none: they mean the one that is there."""

from typing import Any

import aiohttp
import huggingface_hub
import pytest
from scripted_model import ScriptedModel, served

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "prompt": "a"}


async def answer(url: str, path: str, model: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json={**CHAT, "model": model}) as reply,
    ):
        return reply.status, await reply.json()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("name", ["tgi", "dummy"])
async def test_a_placeholder_means_the_only_model_which_is_told(path: str, name: str) -> None:
    async with served({"m": ScriptedModel()}) as url:
        status, document = await answer(url, path, name)
        assert (status, document["model"]) == (200, "m")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_among_several_models_a_placeholder_means_none(path: str) -> None:
    async with served({"m": ScriptedModel(), "n": ScriptedModel()}) as url:
        assert (await answer(url, path, "dummy"))[0] == 404


async def test_a_model_of_that_name_is_meant_by_it() -> None:
    one, other = ScriptedModel(), ScriptedModel()
    async with served({"dummy": one, "n": other}) as url:
        assert (await answer(url, "/v1/completions", "dummy"))[0] == 200
    assert (len(one.requests), len(other.requests)) == (1, 0)


async def test_hugging_faces_client_needs_no_name() -> None:
    async with (
        served({"m": ScriptedModel()}) as url,
        huggingface_hub.AsyncInferenceClient(url) as client,
    ):
        made = await client.chat_completion([{"role": "user", "content": "a"}], max_tokens=5)
    assert (made.model, made.choices[0].message.content) == ("m", "Hello")
