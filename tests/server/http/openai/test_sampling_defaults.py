"""What a model's makers recommend holds where a request does not say."""

from dataclasses import replace
from typing import Any

import aiohttp
from scripted_model import ScriptedModel, served

from trivet.backends.api import Sampling

RECOMMENDED = {
    "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1,
    "max_tokens": 100,
}  # fmt: skip


def recommending(**more: Any) -> ScriptedModel:
    model = ScriptedModel()
    model.info = replace(model.info, sampling_defaults=RECOMMENDED, **more)
    return model


async def asked(model: ScriptedModel, path: str, **fields: Any) -> Sampling:
    """How the model was told to sample."""
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "prompt": "a"}
    async with served({"m": model}) as url, aiohttp.ClientSession() as session:
        body = {"model": "m", **given, **fields}
        async with session.post(url + path, json=body) as answer:
            assert answer.status == 200, await answer.text()
    return model.requests[-1].sampling


async def test_recommended_values_hold_where_nothing_is_said() -> None:
    for path, max_tokens in (("/v1/chat/completions", 100), ("/v1/completions", 16)):
        told = await asked(recommending(), path)
        assert (told.temperature, told.top_p, told.top_k) == (0.6, 0.9, 20)
        assert (told.min_p, told.repetition_penalty) == (0.05, 1.1)
        assert told.max_tokens == max_tokens


async def test_requests_go_before_them() -> None:
    said = {"temperature": 0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    told = await asked(recommending(), "/v1/chat/completions", **said, max_tokens=7)
    assert (told.temperature, told.top_p, told.top_k) == (0.0, 1.0, 0)
    assert (told.min_p, told.repetition_penalty, told.max_tokens) == (0.0, 1.0, 7)


async def test_recommended_length_is_cut_to_what_fits() -> None:
    told = await asked(recommending(max_model_len=50), "/v1/chat/completions")
    assert told.max_tokens == 47  # the scripted prompt has 3 tokens


async def test_they_are_told() -> None:
    async with (
        served({"m": recommending()}) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v1/models/m") as answer,
    ):
        assert (await answer.json())["sampling_defaults"] == RECOMMENDED
