"""The seam by which splits and shadows see the requests that a version got by a choice."""

from typing import Protocol

from trivet.backends.api import Generator, InferRequest, Sink


class Watch(Protocol):
    """Sees what becomes of requests that got a version by a choice of the server's."""

    def observed(self, request: InferRequest, sink: Sink) -> Sink:
        """The sink in whose place the request's answers go."""

    def generator(self, inner: Generator) -> Generator:
        """The same for what asks a model that generates text."""

    def note(self, series: str, value: float) -> None:
        """A figure of a request that its answers do not tell, such as its cost."""
