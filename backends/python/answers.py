"""From what user code returns or sends to what the batch's clients get."""

import weakref
from collections.abc import Sequence

from trivet.backends.api import BackendFailed, Batch, CheckedRequest, ResponseSender, ServingError
from trivet.backends.python.late import LateResponse
from trivet.backends.python.model_api.errors import to_serving_error
from trivet.backends.python.model_api.response import InferenceResponse
from trivet.backends.python.model_api.sender import InferenceResponseSender


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
    batch: Batch,
    index: int,
    response: InferenceResponse | ServingError,
    output_names: Sequence[str],
) -> None:
    """Gives the request of that index its outputs, or its error."""
    if isinstance(response, ServingError):
        batch.fail(index, response)
    elif response.has_error():
        batch.fail(index, to_serving_error(response.error()))
    else:
        wanted = batch.requests[index].output_names or output_names
        try:
            outputs = response.to_api(wanted, output_names)
        except BackendFailed as error:
            batch.fail(index, error)
        else:
            batch.respond(index, outputs, response.raw_parameters())


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
    request: CheckedRequest, sender: ResponseSender, output_names: Sequence[str]
) -> InferenceResponseSender:
    """A sender for a decoupled model, in front of the server's."""

    def deliver(response: InferenceResponse | None, is_final: bool) -> None:  # noqa: FBT001
        if response is None:
            sender.finish()
        elif response.has_error():
            sender.fail(to_serving_error(response.error()))
        else:
            outputs = response.to_api(request.output_names or output_names, output_names)
            sender.send(outputs, final=is_final, parameters=response.raw_parameters())

    return InferenceResponseSender(deliver, lambda: request.cancel.cancelled, is_decoupled=True)


def _response_of(
    item: object, late: LateResponse | None, index: int, model_name: str
) -> InferenceResponse | ServingError:
    where = f"execute of model '{model_name}', request {index}"
    if isinstance(item, InferenceResponse):
        if late is not None and late.has_come:
            return BackendFailed(f"{where}: answered by its response sender and by a response")
        return item
    if item is not None:
        return BackendFailed(f"{where}: returned {type(item).__name__}, not InferenceResponse")
    if late is None:
        return BackendFailed(f"{where}: returned None without taking its response sender")
    try:
        return late.wait()
    except BackendFailed as error:
        return BackendFailed(f"{where}: {error.message}")
