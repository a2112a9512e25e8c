"""instructor, unmodified: answers as pydantic's models, whole, in parts and tried again."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from client_environments import ClientEnvironment
from serving import RunningServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
PROGRAM = """
import json, sys
from typing import Literal

import instructor, openai
from pydantic import BaseModel, ConfigDict


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Literal["Rome", "Oslo", "Lima"]
    size: Literal["small", "large"]


user = [{"role": "user", "content": "Name a city and say how big it is."}]
plain = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
asked = {"model": "small", "messages": user, "max_tokens": 60, "temperature": 0}
found = {}
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(plain, mode=mode)
    found[mode.name] = client.chat.completions.create(response_model=City, **asked).model_dump()
    parts = list(client.chat.completions.create_partial(response_model=City, **asked))
    found[mode.name + " partial"] = parts[-1].model_dump()
print(json.dumps(found))
"""


def test_answers_are_models(
    environment_of: Callable[[str], ClientEnvironment], server: RunningServer
) -> None:
    printed = environment_of("instructor").run("python", "-c", PROGRAM, f"http://{server.http}")
    found: Any = json.loads(printed.splitlines()[-1])
    assert len(found) == 4
    for city in found.values():
        assert city["name"] in ("Rome", "Oslo", "Lima")
        assert city["size"] in ("small", "large")
