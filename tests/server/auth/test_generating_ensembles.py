"""Keys and ensembles that end in a language model: what the steps before it keep and what they ask
of language models is the caller's, as everywhere else."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import openai
import pytest
from auth_site import Clock, Keys
from llm_site import write_small_llm
from patience import patience
from scripted_model import ScriptedModel
from serving import RunningServer, start_server

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    GenerateRequest,
    GenerateSink,
    Sampling,
    ServingError,
)
from trivet.server.auth.errors import RateLimited
from trivet.server.auth.limits import Allowance, Limits
from trivet.server.auth.metering import MeteredGenerator

SMALL = """
backend: "llm"
parameters { key: "kv_cache_bytes" value { string_value: "8388608" } }
"""
NOTED = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.count = 0

    def execute(self, requests):
        self.count += len(requests)
        prompt = np.array([b"yes " * self.count], object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("PROMPT", prompt)]) for _ in requests]
"""
"""Its prompts grow with each question that is not answered out of the cache."""
RELAY = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        question = pb_utils.get_input_tensor_by_name(request, "QUESTION")
        return pb_utils.InferenceRequest(
            model_name="noted", inputs=[question], requested_output_names=["PROMPT"]).exec()
"""
ASKING = """
import numpy as np
import triton_python_backend_utils as pb_utils

LONG = b'{"max_tokens": 24, "ignore_eos": true}'

class TritonPythonModel:
    def execute(self, requests):
        return [self._answer() for _ in requests]

    def _answer(self):
        given = {"text_input": b"Once", "sampling_parameters": LONG}
        tensors = [pb_utils.Tensor(n, np.array([t], object)) for n, t in given.items()]
        asked = pb_utils.InferenceRequest(
            model_name="small", inputs=tensors, requested_output_names=["text_output"])
        for response in asked.exec(decoupled=True):
            assert not response.has_error(), response.error().message()
        prompt = pb_utils.Tensor("PROMPT", np.array([b"yes"], object))
        return pb_utils.InferenceResponse([prompt])
"""
"""Lets the language model write 24 tokens before it says what the prompt is."""
STEP = """
backend: "python"
input [{ name: "QUESTION" data_type: TYPE_STRING dims: [ 1 ] }]
output [{ name: "PROMPT" data_type: TYPE_STRING dims: [ 1 ] }]
"""
INSIDE = 'parameters { key: "isolation" value { string_value: "none" } }'
CACHED = "response_cache { enable: true }"
ENSEMBLE = """
platform: "ensemble"
model_transaction_policy { decoupled: true }
input [{ name: "QUESTION" data_type: TYPE_STRING dims: [ 1 ] }]
output [{ name: "text_output" data_type: TYPE_STRING dims: [ 1 ] }]
ensemble_scheduling { step [
  { model_name: "%s"
    input_map { key: "QUESTION" value: "QUESTION" } output_map { key: "PROMPT" value: "PROMPT" } },
  { model_name: "small"
    input_map { key: "text_input" value: "PROMPT" }
    output_map { key: "text_output" value: "text_output" } }
] }
"""
STEPS = {
    "noted": (NOTED, CACHED),
    "relay": (RELAY, ""),
    "asking": (ASKING, ""),
    "asking_inside": (ASKING, INSIDE),
}


def write_ensembles(repository: Path) -> None:
    """One for each step, named `to_STEP`."""
    for name, (source, more) in STEPS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(STEP + more)
        (repository / name / "1" / "model.py").write_text(source)
        (repository / f"to_{name}" / "1").mkdir(parents=True)
        (repository / f"to_{name}" / "config.pbtxt").write_text(ENSEMBLE % name)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys") / "keys.toml")
    for name in ("a", "b"):
        made.add(name, "infer")
    for name in ("asking", "asking_inside"):
        made.add(name, "infer", more="tokens_per_minute = 20")
    return made


@pytest.fixture(scope="module")
def server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("models")
    write_small_llm(repository, "small", SMALL)
    write_ensembles(repository)
    flags = (f"--auth-keys-file={keys.path}", "--cache-config=local,size=1048576")
    opened = start_server(repository, *flags)
    yield opened
    opened.process.kill()
    opened.process.wait()
    assert opened.process.stdout is not None
    opened.process.stdout.close()


def client(server: RunningServer, secret: str) -> openai.OpenAI:
    url = f"http://{server.http}/v1"
    return openai.OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=patience())


def num_prompt_tokens(made: openai.OpenAI, model: str, form: str) -> int:
    """Of a short answer; each form has a question of its own."""
    if form == "chat":
        told = made.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Well?"}], max_tokens=1
        ).usage
    else:
        told = made.completions.create(model=model, prompt="So?", max_tokens=1).usage
    assert told is not None
    return told.prompt_tokens


@pytest.mark.parametrize("model", ["to_noted", "to_relay"])
@pytest.mark.parametrize("form", ["completion", "chat"])
def test_what_a_step_has_kept_for_one_tenant_is_not_another_s(
    server: RunningServer, keys: Keys, form: str, model: str
) -> None:
    with client(server, keys.secrets["a"]) as a, client(server, keys.secrets["b"]) as b:
        first, again = (num_prompt_tokens(a, model, form) for _ in range(2))
        others = num_prompt_tokens(b, model, form)

    assert again == first
    assert others > first


@pytest.mark.parametrize("step", ["asking", "asking_inside"])
def test_tokens_that_a_step_has_a_language_model_write_are_counted(
    server: RunningServer, keys: Keys, step: str
) -> None:
    """One request may overdraw, whichever of its steps does; the next is refused."""
    began_s = time.monotonic()
    with client(server, keys.secrets[step]) as made:
        assert num_prompt_tokens(made, f"to_{step}", "chat") < 10
        with pytest.raises(openai.RateLimitError) as refused:
            num_prompt_tokens(made, f"to_{step}", "chat")

    # 20 a minute: what the step has had written is more than the minute's, and is owed.
    # Some of it may have come back while the machine was busy.
    owed_s = int(refused.value.response.headers["retry-after"]) + time.monotonic() - began_s
    assert owed_s > 5


class Steps(ScriptedModel):
    """A generator; as an ensemble, its steps have 24 tokens written for each prompt."""

    def __init__(self, *, is_ensemble: bool) -> None:
        super().__init__()
        self.info = replace(self.info, is_ensemble=is_ensemble)
        self.num_prompts = self.num_asked = 0

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        self.num_prompts += 1
        if self.info.is_ensemble and account.on_tokens is not None:
            account.on_tokens(24)
        return prompt

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        self.num_asked += 1


class Refusals:
    """The sink of requests that are refused or not answered."""

    def __init__(self) -> None:
        self.errors: list[ServingError] = []

    def fail(self, error: ServingError) -> None:
        self.errors.append(error)


def ask(generator: MeteredGenerator) -> list[ServingError]:
    """Why the prompt was refused that was made before; empty: it was not."""
    refusals = Refusals()
    request = GenerateRequest("id", [1], Sampling())
    generator.generate(request, cast(GenerateSink, refusals))
    return refusals.errors


async def test_who_owes_tokens_has_no_step_compute() -> None:
    allowance, steps = (
        Allowance("k", Limits(tokens_per_minute=20), Clock()),
        Steps(is_ensemble=True),
    )

    first = MeteredGenerator(steps, allowance)
    await first.compose("Well?")
    assert ask(first) == []  # Its own steps have overdrawn, which is no reason to stop half-way.

    with pytest.raises(RateLimited):
        await MeteredGenerator(steps, allowance).compose("Well?")
    assert (steps.num_prompts, steps.num_asked) == (1, 1)


async def test_who_owes_tokens_may_still_have_a_plain_prompt_written() -> None:
    """For the tokenizer's routes, which cost none."""
    allowance, model = (
        Allowance("k", Limits(tokens_per_minute=20), Clock()),
        Steps(is_ensemble=False),
    )
    allowance.charge_tokens(24)

    generator = MeteredGenerator(model, allowance)
    assert await generator.compose("Well?") == "Well?"
    assert [type(error) for error in ask(generator)] == [RateLimited]
    assert model.num_asked == 0
