"""Response senders of a decoupled model: from any thread to the loop, exactly one end."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from trivet.backends.api import BackendFailed, Parameters, ServingError, Tensor
from trivet.server.scheduling.ticket import Ticket


@dataclass(frozen=True, slots=True)
class Sent:
    """One call of a sender, on its way to the loop."""

    outputs: list[Tensor] | None = None
    parameters: Parameters = field(default_factory=dict)
    error: ServingError | None = None
    final: bool = True


class DecoupledSender:
    """The `ResponseSender` of one request; may outlive `Instance.execute`.

    A model that lets go of it without an end would leave the client waiting for ever, so that ends
    the request with an error.
    """

    __slots__ = ("_deliver", "_is_ended", "_loop", "_ticket")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ticket: Ticket,
        deliver: Callable[[Ticket, Sent], None],
    ) -> None:
        self._loop = loop
        self._ticket = ticket
        self._deliver = deliver
        self._is_ended = False

    def __del__(self) -> None:
        if not self._is_ended and not self._loop.is_closed():
            name = self._ticket.request.model_name
            text = f"model '{name}' dropped the response sender without a final response"
            self._post(Sent(error=BackendFailed(text)))

    def send(
        self, outputs: list[Tensor], *, final: bool = False, parameters: Parameters | None = None
    ) -> None:
        """One response; `final` ends the request with it. Waits where the request has a window
        that is full, but never on the event loop, which makes room."""
        window = self._ticket.request.window
        if window is not None and not _is_running_here(self._loop):
            window.take()
        self._post(Sent(outputs, parameters or {}, final=final))

    def finish(self) -> None:
        """Ends the request without a further response."""
        self._post(Sent())

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""
        self._post(Sent(error=error))

    def _post(self, sent: Sent) -> None:
        self._is_ended = self._is_ended or sent.final
        self._loop.call_soon_threadsafe(self._deliver, self._ticket, sent)


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
