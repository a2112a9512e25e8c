"""Answers that come through a response sender, maybe after `execute` has returned."""

import threading

from trivet.backends.api import BackendFailed
from trivet.backends.python.model_api.response import InferenceResponse


class LateResponse:
    """The one response that a model which is not decoupled sends for a request."""

    def __init__(self) -> None:
        self._settled = threading.Event()
        self._response: InferenceResponse | None = None

    def deliver(self, response: InferenceResponse | None, is_final: bool) -> None:  # noqa: ARG002, FBT001
        """Called by the sender, in whichever thread user code has."""
        if response is not None:
            self._response = response
            self._settled.set()

    def abandon(self) -> None:
        """User code has let go of the sender: nothing will come any more."""
        self._settled.set()

    @property
    def response(self) -> InferenceResponse | None:
        """What has been sent so far."""
        return self._response

    def wait(self) -> InferenceResponse:
        """Waits until it is sent. Raises BackendFailed when the sender was dropped unused."""
        self._settled.wait()
        if self._response is None:
            raise BackendFailed("the model dropped a response sender without sending a response")
        return self._response
