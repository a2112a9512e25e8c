"""What each route takes and gives, for the OpenAPI document. What is not in it is not served."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trivet.server.http.openai.chat_fields import ChatFields
from trivet.server.http.openai.embeddings import EmbeddingFields
from trivet.server.http.openai.fields import DetokenizeFields, TokenizeFields
from trivet.server.http.openai.sampling_fields import CompletionFields
from trivet.server.http.tgi.fields import ChatTokenizeFields, GenerateFields

Parameter = bool | int | float | str


class V2Body(BaseModel):
    """Base of the bodies of Triton's protocol. They say what is read; tensors of requests are read
    by a decoder of their own, which is many times faster."""

    model_config = ConfigDict(extra="allow", strict=True)


class InferInput(V2Body):
    """A tensor: with `data`, or its bytes behind the JSON part, or in shared memory."""

    name: str
    datatype: str = Field(examples=["FP32", "INT64", "BYTES"])
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Parameter] | None = None


class InferOutput(V2Body):
    """A wanted tensor."""

    name: str
    parameters: dict[str, Parameter] | None = None


class InferBody(V2Body):
    """Inputs, and which outputs are wanted; all if it does not say."""

    inputs: list[InferInput]
    outputs: list[InferOutput] | None = None
    id: str | None = Field(None, max_length=4096)
    parameters: dict[str, Parameter] | None = None


class GenerateBody(V2Body):
    """Each input of the model by its name; all other fields are parameters."""

    id: str | None = None
    parameters: dict[str, Parameter] | None = None


class IndexBody(V2Body):
    """Which models are listed."""

    ready: bool | None = None


class LoadBody(V2Body):
    """A config instead of the repository's, as a text that holds JSON."""

    parameters: dict[Literal["config"], str] | None = None


class UnloadBody(V2Body):
    """Whether the steps of an ensemble go with it."""

    parameters: dict[Literal["unload_dependents"], bool] | None = None


class RegionBody(V2Body):
    """A part of a shared memory object."""

    key: str
    byte_size: int
    offset: int = 0


class SettingsBody(V2Body):
    """Names of settings and their new values; null is the default."""


OBJECT: Mapping[str, Any] = {"type": "object"}
ARRAY: Mapping[str, Any] = {"type": "array"}
NUMBERS = "application/octet-stream"
EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """One row."""

    tag: str
    summary: str
    body: type[BaseModel] | None = None
    answer: Mapping[str, Any] | None = field(default_factory=lambda: OBJECT)
    """The schema of its JSON; None: nothing, or what `media` says."""
    media: tuple[str, ...] = ()
    """Other media types that it gives."""
    takes: tuple[str, ...] = ()
    """Other media types that it takes."""
    needs_body: bool = True


_M, _V = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_SYSTEM, _CUDA = "/v2/systemsharedmemory", "/v2/cudasharedmemory"
_REPOSITORY = "/v2/repository"
_INFER = Operation("inference", "Ask a model", InferBody, OBJECT, (NUMBERS,), (NUMBERS,))
_GENERATE = Operation("inference", "Ask with plain JSON for one answer", GenerateBody)
_GENERATE_STREAM = Operation(
    "inference", "The same, answers as events", GenerateBody, None, (EVENTS,)
)
_CHAT = Operation("OpenAI", "Go on in a conversation", ChatFields, OBJECT, (EVENTS,))
_COMPLETE = Operation("OpenAI", "Go on with a text", CompletionFields, OBJECT, (EVENTS,))
_TGI = Operation("TGI", "Go on with a text", GenerateFields, OBJECT)
_TGI_STREAM = Operation("TGI", "The same, tokens as events", GenerateFields, None, (EVENTS,))
_TGI_EITHER = Operation("TGI", "One of the two, by `stream`", GenerateFields, ARRAY, (EVENTS,))
_PROBE = Operation("health", "For load balancers", answer=None)
_LOAD = Operation("repository", "Load or reload a model", LoadBody, None, needs_body=False)
_UNLOAD = Operation("repository", "Unload a model", UnloadBody, None, needs_body=False)
_INDEX = Operation("repository", "All models and their states", IndexBody, ARRAY, needs_body=False)


def _looked_at(path: str) -> dict[tuple[str, str], Operation]:
    return {
        ("GET", path): Operation("models", "Tensors of a model"),
        ("GET", f"{path}/config"): Operation("models", "The config that a model runs with"),
        ("GET", f"{path}/stats"): Operation("models", "What a model has done"),
        ("GET", f"{path}/ready"): Operation("health", "Whether a model can be asked"),
        ("POST", f"{path}/infer"): _INFER,
        ("POST", f"{path}/generate"): _GENERATE,
        ("POST", f"{path}/generate_stream"): _GENERATE_STREAM,
    }


def _memory(path: str, kind: str, body: type[BaseModel] | None) -> dict[tuple[str, str], Operation]:
    tag = "shared memory"
    return {
        ("GET", f"{path}/status"): Operation(tag, f"{kind} regions", answer=ARRAY),
        ("GET", f"{path}/region/{{region}}/status"): Operation(tag, "One of them", answer=ARRAY),
        ("POST", f"{path}/region/{{region}}/register"): Operation(tag, "Register it", body, None),
        ("POST", f"{path}/region/{{region}}/unregister"): Operation(tag, "Forget it", answer=None),
        ("POST", f"{path}/unregister"): Operation(tag, "Forget all", answer=None),
    }


def _settings(path: str, tag: str) -> dict[tuple[str, str], Operation]:
    return {
        ("GET", path): Operation(tag, "The settings"),
        ("POST", path): Operation(tag, "Change them", SettingsBody, needs_body=False),
    }


OPERATIONS: Mapping[tuple[str, str], Operation] = MappingProxyType(
    {
        **_looked_at(_M),
        **_looked_at(_V),
        ("GET", "/v2/health/live"): Operation("health", "Whether the server lives"),
        ("GET", "/v2/health/ready"): Operation("health", "Whether every model serves"),
        ("GET", "/v2"): Operation("models", "Name, version and extensions of the server"),
        ("GET", "/v2/"): Operation("models", "The same"),
        ("GET", "/v2/models"): Operation("models", "Names of the models that serve"),
        ("GET", "/v2/models/stats"): Operation("models", "What all models have done"),
        ("POST", f"{_REPOSITORY}/index"): _INDEX,
        ("POST", f"{_REPOSITORY}/{{region}}/index"): _INDEX,
        ("POST", f"{_REPOSITORY}/models/{{model*}}/load"): _LOAD,
        ("POST", f"{_REPOSITORY}/models/{{model*}}/unload"): _UNLOAD,
        ("POST", f"{_REPOSITORY}/{{region}}/models/{{model}}/load"): _LOAD,
        ("POST", f"{_REPOSITORY}/{{region}}/models/{{model}}/unload"): _UNLOAD,
        **_memory(_SYSTEM, "System", RegionBody),
        **_memory(_CUDA, "CUDA", None),
        **_settings("/v2/trace/setting", "tracing"),
        **_settings(f"{_M}/trace/setting", "tracing"),
        **_settings("/v2/logging", "logging"),
        ("POST", "/v1/chat/completions"): _CHAT,
        ("POST", "/v1/completions"): _COMPLETE,
        ("POST", "/v1/embeddings"): Operation("OpenAI", "Texts to vectors", EmbeddingFields),
        ("GET", "/v1/models"): Operation("OpenAI", "The language models"),
        ("GET", "/v1/models/{model}"): Operation("OpenAI", "One of them"),
        ("POST", "/tokenize"): Operation("OpenAI", "A text's tokens", TokenizeFields, {}),
        ("POST", "/detokenize"): Operation("OpenAI", "The text of tokens", DetokenizeFields),
        ("GET", "/tokenizer_info"): Operation("OpenAI", "The tokenizer's settings"),
        ("GET", "/version"): Operation("OpenAI", "The server's version"),
        ("GET", "/load"): Operation("OpenAI", "Requests in progress"),
        ("POST", "/generate"): _TGI,
        ("POST", "/generate_stream"): _TGI_STREAM,
        ("POST", "/"): _TGI_EITHER,
        ("POST", "/chat_tokenize"): Operation("TGI", "A conversation's tokens", ChatTokenizeFields),
        ("GET", "/info"): Operation("TGI", "The model and its limits"),
        ("GET", "/health"): _PROBE,
        ("GET", "/ping"): _PROBE,
        ("POST", "/ping"): _PROBE,
        ("GET", "/metrics"): Operation(
            "metrics", "Prometheus's page", answer=None, media=("text/plain",)
        ),
        ("GET", "/openapi.json"): Operation("OpenAPI", "This document"),
    }
)
"""By method and template of the route table."""
