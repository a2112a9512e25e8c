"""OpenAI's agents, whose default is /v1/responses, unmodified, in an environment of their own."""

import asyncio
import json
from pathlib import Path

import pytest
from client_environments import client_environment
from scripted_model import ScriptedModel, served

from trivet.backends.api import GenerateRequest, GenerateSink

AGENT = """
import asyncio, json, os
from agents import (
    Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled,
)
from openai import AsyncOpenAI

called = []

@function_tool
def choose(colour: str) -> str:
    "Chooses a colour."
    called.append(colour)
    return f"It is {colour} now."

async def main():
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=os.environ["URL"], api_key="none", max_retries=0)
    set_default_openai_client(client)
    agent = Agent(
        name="a", instructions="Be brief.", model="painter", tools=[choose],
        # Only the first turn is forced: afterwards an agent is free again.
        model_settings=ModelSettings(tool_choice="required", temperature=0, max_tokens=60),
    )
    whole = await Runner.run(agent, "Paint it.")
    streamed = Runner.run_streamed(agent, "Paint it.")
    kinds = [e.data.type async for e in streamed.stream_events() if e.type == "raw_response_event"]
    print(json.dumps({
        "called": called, "kinds": kinds, "output": [whole.final_output, streamed.final_output],
        "turns": [len(whole.raw_responses), len(streamed.raw_responses)],
        "tokens": [each.usage.input_tokens for each in whole.raw_responses[:1]]
        + [each.usage.output_tokens for each in whole.raw_responses[:1]],
    }))

asyncio.run(main())
"""


class Painter(ScriptedModel):
    """Calls the tool it is forced to call, and tells what came of it."""

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        is_answered = self.rendered[-1].messages[-1]["role"] == "tool"
        call = ['<tool_call>{"name": "choose", "argu', 'ments": {"colour": "red"}}</tool_call>']
        self.pieces = ["It is", " red."] if is_answered else call
        super().generate(request, sink)


@pytest.mark.slow
async def test_an_agent_calls_its_tool_and_answers_whole_and_streamed(tmp_path: Path) -> None:
    made = await asyncio.to_thread(client_environment, tmp_path, "openai-agents")
    model = Painter()
    async with served({"painter": model}) as url:
        env = {"URL": f"{url}/v1"}
        told = await asyncio.to_thread(made.run, "python", "-c", AGENT, env=env)
    found = json.loads(told.splitlines()[-1])
    assert found["called"] == ["red", "red"]
    assert found["output"] == ["It is red."] * 2
    assert found["turns"] == [2, 2]
    assert found["tokens"] == [3, 2]
    kinds = [kind.removeprefix("response.") for kind in found["kinds"]]
    assert kinds.count("created") == kinds.count("completed") == 2
    assert {"function_call_arguments.done", "output_text.delta"} <= set(kinds)
    forced, free = (request.sampling.grammar for request in model.requests[:2])
    assert forced is not None
    assert free is None
