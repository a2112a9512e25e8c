"""OpenAI's agents, whose default is /v1/responses, unmodified, in an environment of their own."""

import json

import pytest
from client_environments import client_environment
from serving import RunningServer

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
        name="painter", instructions="Be brief.", model="smollm2", tools=[choose],
        # Only the first turn is forced: afterwards an agent is free again.
        model_settings=ModelSettings(tool_choice="required", temperature=0, max_tokens=60),
    )
    whole = await Runner.run(agent, "Paint it.")
    streamed = Runner.run_streamed(agent, "Paint it.")
    kinds = [e.data.type async for e in streamed.stream_events() if e.type == "raw_response_event"]
    print(json.dumps({
        "called": called, "kinds": kinds, "output": [whole.final_output, streamed.final_output],
        "turns": [len(whole.raw_responses), len(streamed.raw_responses)],
        "tokens": whole.raw_responses[0].usage.input_tokens,
    }))

asyncio.run(main())
"""


@pytest.mark.slow
def test_an_agent_calls_its_tool_and_answers_whole_and_streamed(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = client_environment(tmp_path_factory.mktemp("clients"), "openai-agents")
    told = made.run("python", "-c", AGENT, env={"URL": f"http://{server.http}/v1"})
    found = json.loads(told.splitlines()[-1])
    assert len(found["called"]) >= 2
    assert found["output"][0] == found["output"][1]
    assert found["output"][0]
    assert found["turns"] == [2, 2]
    assert found["tokens"] > 0
    assert found["kinds"].count("response.created") == found["kinds"].count("response.completed")
    assert "response.function_call_arguments.done" in found["kinds"]
    assert "response.output_text.delta" in found["kinds"]
