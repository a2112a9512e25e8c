"""A traced request as it is handed on: spans of what happened to it, by the monotonic clock."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from trivet.backends.api import CopyKind

AttributeValue = str | int | float | bool | tuple[str, ...]


class Stamp(NamedTuple):
    """A moment, by its name in Triton's traces."""

    name: str
    ns: int


class SeenTensor(NamedTuple):
    """A tensor at some place, copied."""

    activity: str
    name: str
    datatype: str
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Stages:
    """When a model had what of a request."""

    queued_ns: int
    started_ns: int
    gathered_ns: int
    computed_ns: int
    ended_ns: int


@dataclass(slots=True, eq=False)
class Span:
    """Something that took time: the request itself, or a model's part in it."""

    name: str
    id: int
    parent_id: int
    """0: none."""
    started_ns: int
    ended_ns: int = 0
    model_name: str = ""
    """Empty for the request itself."""
    model_version: int = 0
    request_id: str = ""
    stamps: list[Stamp] = field(default_factory=list)
    stages: Stages | None = None
    """None where nothing is known of them."""
    copied_bytes: dict[CopyKind, int] | None = None
    """None where they are not counted."""
    host_synchronisations: int = 0
    tensors: list[SeenTensor] = field(default_factory=list)
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    is_whole: bool = False
    """Whether it is all of what a client asked."""
    error: str = ""
    """What the client was told; empty: it went well."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Spans of a request, those that began first before the others."""

    trace_id: int
    spans: list[Span]
    log_frequency: int
