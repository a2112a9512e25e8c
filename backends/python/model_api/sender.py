"""Sends the responses of one request, during `execute` or after it."""

import threading
from collections.abc import Callable

from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.response import InferenceResponse

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

Deliver = Callable[[InferenceResponse | None, bool], None]
"""Takes a response, if any, and whether it is the last."""


class InferenceResponseSender:
    """Sends responses from any thread. A model that is not decoupled sends exactly one."""

    def __init__(
        self, deliver: Deliver, is_cancelled: Callable[[], bool], *, is_decoupled: bool
    ) -> None:
        self._deliver = deliver
        self._is_cancelled = is_cancelled
        self._is_decoupled = is_decoupled
        self._lock = threading.Lock()
        self._is_closed = False
        self._num_sent = 0

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Sends a response, ends the request (flag FINAL), or both.

        Raises TritonModelException after the end and for flags or responses that make no sense.
        """
        is_final = flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL
        _check_arguments(response, flags)
        with self._lock:
            self._check_turn(response)
            self._is_closed = is_final
            self._num_sent += 1
            self._deliver(response, is_final)

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_cancelled()

    def _check_turn(self, response: InferenceResponse | None) -> None:
        if self._is_closed:
            raise TritonModelException("Unable to send response. Response sender has been closed.")
        if self._is_decoupled:
            return
        if response is not None and self._num_sent:
            raise TritonModelException(
                "Unable to send response. Non-decoupled model cannot send more than one response."
            )
        if response is None and not self._num_sent:
            raise TritonModelException(
                "Unable to send response. Non-decoupled model cannot send complete final before "
                "sending a response."
            )


def _check_arguments(response: InferenceResponse | None, flags: int) -> None:
    if response is not None and not isinstance(response, InferenceResponse):
        given = type(response).__name__
        raise TritonModelException(
            f"Unable to send response. Expected an InferenceResponse, got {given}."
        )
    if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
        raise TritonModelException("Unable to send response. Unsupported flag provided.")
    if flags == 0 and response is None:
        raise TritonModelException(
            "Inference Response object must be provided when the response flags is set to zero."
        )
