"""From what user code returns or sends to what the batch's clients get."""

import logging
import weakref
from typing import NamedTuple

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CheckedRequest,
    Parameters,
    ResponseSender,
    ServingError,
    Tensor,
)
from trivet.backends.python.late import LateResponse
from trivet.backends.python.model_api.errors import TritonModelException, to_serving_error
from trivet.backends.python.model_api.response import InferenceResponse
from trivet.backends.python.model_api.sender import InferenceResponseSender

log = logging.getLogger(__name__)


class Made(NamedTuple):
    """A response as it can be sent."""

    outputs: list[Tensor]
    parameters: Parameters


class ModelOutputs:
    """What the config says that a model gives: makes answers of user code's responses."""

    def __init__(self, model_name: str, names: list[str]) -> None:
        self.model_name = model_name
        self.names = names
        self._dropped: set[str] = set()
        self._unsendable = f"model '{model_name}' gave no answer that can be sent"

    def made(self, response: InferenceResponse, request: CheckedRequest) -> Made | ServingError:
        """The door of answers: user code's objects may raise anything when they are looked at, and
        hold what nobody can send. Either is the error of this request alone."""
        try:
            if response.has_error():
                return to_serving_error(response.error())
            wanted = request.output_names or self.names
            outputs: list[Tensor] = []
            for tensor in response.output_tensors():
                name = tensor.name()
                if name in wanted:
                    outputs.append(tensor.to_api())
                elif name not in self.names:
                    self._note_undeclared(name)
            return Made(outputs, response.raw_parameters())
        except TritonModelException as error:
            return BackendFailed(f"{self._unsendable}: {error}")
        except Exception:
            log.exception("a response of model '%s' cannot be sent", self.model_name)
            return BackendFailed(f"{self._unsendable}; the server log has the details")

    def _note_undeclared(self, name: str) -> None:
        if name in self._dropped or len(self._dropped) == _MOST_NOTED:
            return
        self._dropped.add(name)
        log.warning(
            "model '%s' gives output '%s', which its configuration does not list: it is dropped, "
            "now and later. Listed are %s",
            self.model_name, name, self.names,
        )  # fmt: skip


_MOST_NOTED = 64
"""Names: a model may make up new ones for ever."""


def responses_of(
    returned: object, late: dict[int, LateResponse], batch: Batch, model_name: str
) -> dict[int, InferenceResponse | ServingError]:
    """One response per request that is not rescheduled, by its index: from the returned list or
    late through a response sender.

    Raises BackendFailed for a list of the wrong length.
    """
    num_requests = len(batch.requests)
    listed = [None] * num_requests if returned is None else returned
    if not isinstance(listed, (list, tuple)):
        raise BackendFailed(
            f"execute of model '{model_name}' returned {type(returned).__name__}, expected a list "
            "of InferenceResponse"
        )
    if len(listed) != num_requests:
        raise BackendFailed(
            f"execute of model '{model_name}' returned {len(listed)} responses for {num_requests} "
            "requests; it must return one for each"
        )
    return {
        index: _response_of(item, late.get(index), index, model_name)
        for index, item in enumerate(listed)
        if index not in batch.rescheduled
    }


def answer(
    batch: Batch, index: int, response: InferenceResponse | ServingError, outputs: ModelOutputs
) -> None:
    """Gives the request of that index its outputs, or its error."""
    if isinstance(response, InferenceResponse):
        made = outputs.made(response, batch.requests[index])
        if isinstance(made, Made):
            batch.respond(index, made.outputs, made.parameters)
            return
        response = made
    batch.fail(index, response)


def answer_sent(
    batch: Batch, late: dict[int, LateResponse], error: ServingError, outputs: ModelOutputs
) -> None:
    """After `execute` has failed: what its senders had sent before is answered all the same."""
    for index in range(len(batch.requests)):
        sent = late[index].response if index in late else None
        answer(batch, index, sent or error, outputs)


def late_sender(
    request: CheckedRequest, late: dict[int, LateResponse], index: int
) -> InferenceResponseSender:
    """A sender for a model that is not decoupled; what it sends comes out of `late[index]`."""
    late_response = late[index] = LateResponse()
    sender = InferenceResponseSender(
        late_response.deliver, lambda: request.cancel.cancelled, is_decoupled=False
    )
    weakref.finalize(sender, late_response.abandon).atexit = False
    return sender


def open_sender(
    request: CheckedRequest, sender: ResponseSender, outputs: ModelOutputs
) -> InferenceResponseSender:
    """A sender for a decoupled model, in front of the server's. What cannot be sent ends the
    request; what comes after that goes nowhere, as after a cancellation."""

    def deliver(response: InferenceResponse | None, is_final: bool) -> None:  # noqa: FBT001
        if response is None:
            sender.finish()
            return
        made = outputs.made(response, request)
        if isinstance(made, Made):
            sender.send(made.outputs, final=is_final, parameters=made.parameters)
        else:
            sender.fail(made)

    return InferenceResponseSender(deliver, lambda: request.cancel.cancelled, is_decoupled=True)


def _response_of(
    item: object, late: LateResponse | None, index: int, model_name: str
) -> InferenceResponse | ServingError:
    where = f"execute of model '{model_name}', request {index}"
    if isinstance(item, InferenceResponse):
        sent = None if late is None else late.response
        if sent is not None:
            log.warning("%s: its response sender has answered, what is returned is dropped", where)
        return sent or item
    if item is not None:
        return BackendFailed(f"{where}: returned {type(item).__name__}, not InferenceResponse")
    if late is None:
        return BackendFailed(f"{where}: returned None without taking its response sender")
    try:
        return late.wait()
    except BackendFailed as error:
        return BackendFailed(f"{where}: {error.message}")
