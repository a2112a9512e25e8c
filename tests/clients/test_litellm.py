"""LiteLLM, unmodified: through its OpenAI, vLLM and Anthropic providers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from client_environments import ClientEnvironment
from serving import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PROGRAM = """
import json, sys
import litellm

root = sys.argv[1]
user = [{"role": "user", "content": "Name a city."}]
parameters = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}},
              "required": ["colour"], "additionalProperties": False}
tool = {"type": "function", "function": {"name": "choose", "parameters": parameters}}
named = {"type": "function", "function": {"name": "choose"}}
schema = {"type": "json_schema", "json_schema": {"name": "c", "schema": parameters}}


def ask(provider, base, **wishes):
    asked = {"messages": user, "max_tokens": 8, "temperature": 0, "api_key": "none"}
    return litellm.completion(f"{provider}/small", api_base=base, **{**asked, **wishes})


def told(answer):
    message = answer.choices[0].message
    calls = [(each.function.name, json.loads(each.function.arguments))
             for each in message.tool_calls or ()]
    usage = answer.usage
    return {"text": message.content, "calls": calls, "finish": answer.choices[0].finish_reason,
            "prompt": usage.prompt_tokens, "output": usage.completion_tokens}


def streamed(provider, base, **wishes):
    chunks = list(ask(provider, base, stream=True, **wishes))
    return told(litellm.stream_chunk_builder(chunks, messages=user))


found = {}
for provider, base in (
    ("openai", f"{root}/v1"), ("hosted_vllm", f"{root}/v1"), ("anthropic", root)
):
    called = {"tools": [tool], "tool_choice": named, "max_tokens": 40}
    found[provider] = {
        "whole": told(ask(provider, base)),
        "stream": streamed(provider, base, stream_options={"include_usage": True}),
        "tool": told(ask(provider, base, **called)),
        "streamed tool": streamed(provider, base, **called),
    }
    try:
        ask(provider, base, messages=[{"role": "user", "content": "word " * 20000}])
    except litellm.BadRequestError as error:
        found[provider]["error"] = type(error).__name__
answer = ask("openai", f"{root}/v1", response_format=schema, max_tokens=40)
found["schema"] = json.loads(answer.choices[0].message.content)
text = litellm.text_completion(
    model="text-completion-openai/small", prompt="Once upon", max_tokens=4, temperature=0,
    api_base=f"{root}/v1", api_key="none")
found["completion"] = text.choices[0].text
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(environment_of: Callable[[str], ClientEnvironment], server: RunningServer) -> Any:
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    printed = environment_of("litellm").run(
        "python", "-c", PROGRAM, f"http://{server.http}", env=offline
    )
    return json.loads(printed.splitlines()[-1])


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
def test_every_provider_gets_the_same_answers(found: Any, provider: str) -> None:
    told = found[provider]
    assert told["whole"] == found["openai"]["whole"]
    assert told["whole"]["output"] == 8
    assert told["stream"] == told["whole"]
    for kind in ("tool", "streamed tool"):
        ((name, arguments),) = told[kind]["calls"]
        assert name == "choose"
        assert arguments["colour"] in ("red", "blue")
    assert told["error"].endswith("BadRequestError") or "Window" in told["error"]


def test_documents_and_completions(found: Any) -> None:
    assert found["schema"]["colour"] in ("red", "blue")
    assert found["completion"]
