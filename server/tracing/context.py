"""Who asked for a request, in W3C Trace Context: the `traceparent` header in and out. Pure."""

import random
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace."""

    trace_id: int
    span_id: int
    """Of the span that what comes next is a part of; 0: of none."""
    is_sampled: bool = True

    @classmethod
    def parse(cls, header: str | None) -> "TraceContext | None":
        """None for a header that is absent or means nothing, as the specification asks."""
        match = _TRACEPARENT.fullmatch(header) if header and len(header) <= 256 else None
        if match is None:
            return None
        version, trace_id, span_id, flags, more = match.groups()
        if version == "ff" or (version == "00" and more):
            return None
        context = cls(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
        return context if context.trace_id and context.span_id else None

    @classmethod
    def new(cls) -> "TraceContext":
        """The beginning of a trace of its own."""
        return cls(random.getrandbits(128) or 1, 0)

    def header(self) -> str:
        """As a `traceparent` has it."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


def new_span_id() -> int:
    """Ids are unlikely to meet, and no secrets."""
    return random.getrandbits(64) or 1
