"""Where the answers to one request go."""

from typing import Protocol

from trivet.backends.api.errors import ServingError
from trivet.backends.api.request import InferResponse


class Sink(Protocol):
    """Receives 0..n responses and exactly one end: `final=True`, `finish` or `fail`.

    Called on the event loop only: executors bring results there. Calls after the end are ignored.
    """

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response; `final` ends the request with it."""

    def finish(self) -> None:
        """Ends the request without a further response."""

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""
