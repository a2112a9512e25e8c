"""LangChain's chat model for OpenAI, as applications use it: texts, streams, tools, documents."""

from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from patience import patience
from pydantic import BaseModel, ConfigDict
from serving import RunningServer

pytestmark = pytest.mark.slow
QUESTION = [HumanMessage("Name a city and say how big it is.")]


class City(BaseModel):
    """A city."""

    model_config = ConfigDict(extra="forbid")  # else a document may go on for ever

    name: Literal["Rome", "Oslo", "Lima"]
    size: Literal["small", "large"]


@pytest.fixture
def chat(server: RunningServer) -> Any:
    return ChatOpenAI(
        base_url=f"http://{server.http}/v1", api_key="none", model="small", temperature=0,
        max_retries=0, timeout=patience(), max_tokens=40, stream_usage=True,
    )  # fmt: skip


def test_streams_are_the_parts_of_answers(chat: Any) -> None:
    whole = chat.invoke(QUESTION, max_tokens=8)
    parts = list(chat.stream(QUESTION, max_tokens=8))
    assert "".join(part.content for part in parts) == whole.content
    assert whole.usage_metadata["output_tokens"] == 8
    assert sum(part.usage_metadata["output_tokens"] for part in parts if part.usage_metadata) == 8


def test_tools_are_called_and_answered(chat: Any) -> None:
    called = chat.bind_tools([City], tool_choice="City").invoke(QUESTION)
    assert isinstance(called, AIMessage)
    (call,) = called.tool_calls
    City(**call["args"])
    turns = [*QUESTION, called, ToolMessage("done", tool_call_id=call["id"])]
    assert chat.bind_tools([City]).invoke(turns, max_tokens=4).content


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_documents_are_parsed(chat: Any, method: str) -> None:
    found = chat.with_structured_output(City, method=method).invoke(QUESTION)
    assert isinstance(found, City)


async def test_many_are_asked_at_a_time(chat: Any) -> None:
    turns = [[HumanMessage(words)] for words in ("Count.", "Sing.")]
    assert len(await chat.abatch(turns, max_tokens=2)) == 2
