"""What a gRPC transport may be told."""

from dataclasses import dataclass

from trivet.server.grpc.transport import Gate


@dataclass(frozen=True, slots=True)
class Http2Options:
    """Limits and times. 0 seconds: never."""

    max_message_bytes: int
    max_concurrent_streams: int = 1024
    """Calls in progress on one connection."""
    max_connections: int = 4096
    """Connections at a time; one more is closed at once."""
    gzip_level: int = 0
    """Compression of responses for clients that can read it; 0: none."""
    handshake_timeout_s: float = 10.0
    keepalive_s: float = 0.0
    """A ping after so long without a frame from the client."""
    keepalive_timeout_s: float = 20.0
    pings_idle: bool = True
    """Also where no call is in progress: a client that is gone would hold its place for ever."""
    max_pings_without_data: int = 0
    """So many pings, and no more until a call moves on; 0: any number."""
    min_ping_interval_s: float = 0.0
    """A client's ping sooner after the one before, while no call moves on, is a strike."""
    max_ping_strikes: int = 2
    """One more closes the connection; 0: any number."""
    max_connection_age_s: float = 0.0
    max_connection_age_grace_s: float = 0.0
    """0: calls in progress may take as long as they need."""
    gate: Gate | None = None
    """None: everybody may call everything."""
