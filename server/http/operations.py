"""What a route takes and gives, for the OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OBJECT: Mapping[str, Any] = {"type": "object"}
ARRAY: Mapping[str, Any] = {"type": "array"}
NUMBERS = "application/octet-stream"
EVENTS = "text/event-stream"
NDJSON = "application/x-ndjson"
OPENAI, ANTHROPIC, TGI, TEI, OLLAMA = "OpenAI", "Anthropic", "TGI", "TEI", "Ollama"
"""Tags of the APIs of language models and encoders."""


@dataclass(frozen=True, slots=True)
class Operation:
    """Part of a route's row."""

    tag: str
    """The API, whose form refusals have; of Triton's protocol its extensions."""
    summary: str
    body: str = ""
    """Where its fields are: a module of this package and a class in it ("v2_fields:InferBody"); "":
    it takes none. By name, since they are pydantic's, whose import many servers never need."""
    answer: Mapping[str, Any] | None = field(default_factory=lambda: OBJECT)
    """The schema of its JSON; None: nothing, or what `media` says."""
    media: tuple[str, ...] = ()
    """Other media types that it gives."""
    takes: tuple[str, ...] = ()
    """Other media types that it takes."""
    needs_body: bool = True
    query: Mapping[str, Any] = field(default_factory=dict)
    """The schemas of what its query may hold."""
