"""The door's limits: how large, how slow and how many."""

from dataclasses import dataclass, field

from trivet.server.protocol.outputs import MAX_RESPONSE_BYTES

MAX_REQUEST_ID_BYTES = 128
MAX_INFER_ID_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Of one JSON text, checked before anything is built from it."""

    max_depth: int = 100
    """`--http-max-json-depth`."""
    max_values: int = 10_000_000
    """`--http-max-json-values`."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits of one HTTP server. Sizes count the body after decompression."""

    max_body_bytes: int = 64 * 1024 * 1024
    """`--http-max-input-size`."""
    max_response_bytes: int = MAX_RESPONSE_BYTES
    """Outputs of one response. `--max-response-size`."""
    json: JsonLimits = field(default_factory=JsonLimits)
    max_chunks: int = 65_536
    max_header_line_bytes: int = 8190
    max_headers: int = 100
    max_connections: int = 4096
    max_pending_events: int = 1024
    """Responses of one stream that wait for a client that does not read; then it is cancelled."""
    event_keep_alive_s: float = 15.0
    """A stream of generated text that has nothing to say for so long says that it lives."""
    head_timeout_s: float = 10.0
    idle_timeout_s: float = 3600.0
    """How long a connection may stay open between two requests."""
    body_idle_timeout_s: float = 30.0
    body_grace_s: float = 10.0
    """How long a body may take before `min_body_bytes_per_s` is asked of it."""
    min_body_bytes_per_s: int = 1024
    lingering_s: float = 5.0
    """How long the unread rest of a refused body is taken in: its sender then sees the answer."""
    max_stored_responses: int = 1000
    """`--response-store-count`."""
    max_stored_response_bytes: int = 64 * 1024 * 1024
    """`--response-store-size`."""
    compression_level: int = 1
    """zlib's, of answers to clients that accept compression; 0: none."""
