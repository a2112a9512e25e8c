"""A prompt as a model: what its base is asked, over each of the ways to ask."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import CountingSink
from prompt_folders import DESK, write_prompt
from scripted_model import ScriptedModel

from trivet.backends.api import (
    CheckedRequest,
    Chunk,
    GenerateRequest,
    InferResponse,
    ModelFiles,
    Sampling,
    ServingError,
    Tensor,
    Unavailable,
)
from trivet.backends.prompt.executor import PromptExecutor
from trivet.backends.prompt.prompt_file import read_prompt_file
from trivet.backends.prompt.templates import PromptTemplates
from trivet.server.models.observer import StatisticsObserver
from trivet.server.models.routing import NOBODY
from trivet.server.scheduling.statistics import ModelStatistics


class OneModel:
    """The server: it has one generating model."""

    def __init__(self, model: ScriptedModel | None) -> None:
        self.model = model
        self.asked: list[tuple[str, object]] = []
        self.choices: list[tuple[object, object]] = []
        """The keys and clients that versions of it were chosen for."""

    def generator(
        self, name: str, version: int | str | None, key: object, client: object
    ) -> ScriptedModel | None:
        self.asked.append((name, version))
        self.choices.append((key, client))
        return self.model

    def is_ready(self, name: str, version: int | str | None) -> bool:
        return self.model is not None


class Site:
    """A prompt over a scripted model."""

    def __init__(self, folder: Path, text: str = DESK) -> None:
        path = write_prompt(folder, "desk", text)
        self.base = ScriptedModel()
        self.base.info = replace(self.base.info, chat_template="a template")
        self.server = OneModel(self.base)
        self.statistics = ModelStatistics("desk", 1)
        templates = PromptTemplates(read_prompt_file(ModelFiles(path.parent, 1)))
        observer = StatisticsObserver(self.statistics)
        server: Any = self.server  # as far as it is asked
        self.executor = PromptExecutor("desk", 1, templates, server, observer)

    async def infer(self, **inputs: object) -> CountingSink:
        tensors = {name: tensor(name, given) for name, given in inputs.items()}
        sink = CountingSink()
        self.executor.submit(CheckedRequest("desk", 1, "id", tensors), sink)
        await sink.wait()
        return sink


def tensor(name: str, given: object) -> Tensor:
    if isinstance(given, bool):
        return Tensor.of(name, np.array([given]))
    return Tensor.of(name, np.array([str(given).encode()], dtype=np.object_))


def told(response: InferResponse) -> str:
    return bytes(response.outputs[0].numpy()[0]).decode()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_tensors_are_answered_with_variables_and_recommended_sampling(site: Site) -> None:
    sink = await site.infer(text_input="A bill", company="ACME")

    (chat,) = site.base.rendered
    assert chat.messages[0]["content"] == "You sort letters of ACME."
    assert chat.messages[-1]["content"].endswith("\nA bill")
    sampling = site.base.requests[0].sampling
    assert (sampling.temperature, sampling.max_tokens) == (0.0, 6)
    assert told(sink.responses[0]) == "A billHello", "the client's text, and not the prompt"
    assert (sink.responses[0].model_name, sink.responses[0].model_version) == ("desk", 1)


async def test_what_a_request_says_goes_before_the_prompt(site: Site) -> None:
    await site.infer(text_input="A bill", sampling_parameters='{"max_tokens": 2}')

    assert site.base.requests[0].sampling.max_tokens == 2


async def test_a_rendered_prompt_gets_no_second_beginning(site: Site) -> None:
    asked: list[bool] = []

    async def encode(text: str, *, add_special_tokens: bool) -> list[int]:
        assert text == "prompt"
        asked.append(add_special_tokens)
        return [1]

    site.base.encode = encode  # type: ignore[method-assign]  # the model is scripted
    generator = site.executor.for_one_request()
    await generator.encode(await generator.compose("A bill"), add_special_tokens=True)

    assert asked == [False]


async def test_a_base_without_chat_template_reads_plain_text(site: Site) -> None:
    site.base.info = replace(site.base.info, chat_template="")
    text = await site.executor.compose("A bill")

    assert text == "You sort letters of Example Ltd.\n\nWhich desk gets this letter?\nA bill"


async def test_stop_texts_and_schema_hold_unless_a_request_has_its_own(tmp_path: Path) -> None:
    schema = 'response_schema = {type = "object"}\n' + DESK
    site = Site(tmp_path, schema.replace("[sampling]", '[sampling]\nstop = ["END"]'))
    await site.infer(text_input="A bill", sampling_parameters='{"stop": ["."]}')

    sampling = site.base.requests[0].sampling
    assert sampling.stop == (".", "END")
    assert sampling.grammar is not None
    assert (sampling.grammar.kind, sampling.grammar.value) == ("json_schema", '{"type":"object"}')


async def test_one_version_of_the_base_answers_a_request(site: Site) -> None:
    generator = site.executor.for_one_request()
    text = await generator.compose("A bill")
    await generator.encode(text, add_special_tokens=True)

    assert site.server.asked == [("base", None)]


async def test_requests_are_counted(site: Site) -> None:
    await site.infer(text_input="A bill")

    assert site.statistics.succeeded.count == 1


async def test_a_base_that_is_gone_fails_the_request(site: Site) -> None:
    site.server.model = None
    sink = await site.infer(text_input="A bill")

    assert sink.error is not None
    assert "its base 'base' does not generate text any more" in sink.error.message
    assert not site.executor.is_ready()


async def test_closing_ends_what_is_under_way(site: Site) -> None:
    ends: list[ServingError] = []

    class Waiting:
        def chunk(self, chunk: Chunk) -> None: ...

        def fail(self, error: ServingError) -> None:
            ends.append(error)

    site.base.waits_for = asyncio.Event()
    request = GenerateRequest("id", [1], Sampling())
    site.executor.generate(request, Waiting())
    await site.executor.close()

    assert request.cancel.cancelled
    assert [type(each) for each in ends] == [Unavailable]
    await site.executor.drain()


async def test_a_request_whose_conversation_is_being_written_ends_with_the_model(
    site: Site,
) -> None:
    sinks = [CountingSink(), CountingSink()]
    asked = CheckedRequest("desk", 1, "id", {"text_input": tensor("text_input", "Where is it?")})
    site.executor.submit(asked, sinks[0])
    await asyncio.sleep(0)
    site.executor.submit(asked, sinks[1])  # its task has not begun
    await site.executor.close()
    await site.executor.drain()

    assert [type(sink.error) for sink in sinks] == [Unavailable, Unavailable]


async def test_the_base_is_chosen_by_the_key_and_the_client_of_the_request(site: Site) -> None:
    client = NOBODY
    site.executor.for_one_request("a key", client)
    await site.infer(text_input="A bill")

    assert site.server.choices == [("a key", client), ("id", None)]
