"""Bodies of Triton's protocol, for the OpenAPI document. Imported when that is asked for."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    """A config instead of the repository's, as a text that holds JSON, and beside it the model's
    files in base64, as `file:VERSION/NAME`."""

    parameters: dict[str, str] | None = None


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


class TrafficBody(V2Body):
    """Who gets which version: percentages by label or version, which sum to 100."""

    labels: dict[str, int] | None = None
    split: dict[str, float] | None = None
    sticky: list[str] | None = None


class RolloutBody(V2Body):
    """Of a start, which version is rolled out, and how; of an abort, the reason."""

    version: int | None = None
    policy: dict[str, Any] | None = None
    reason: str | None = None


class FeedbackBody(V2Body):
    """How a request turned out, or a version of a model, the usual one if it does not say: a
    number, the higher the better."""

    request_id: str | None = None
    model: str | None = None
    version: int | None = None
    name: str
    value: float
