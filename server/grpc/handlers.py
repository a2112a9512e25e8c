"""Handlers of RPCs that parse one message and answer at once."""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from trivet.backends.api import (
    BackendFailed,
    InferResponse,
    InvalidRequest,
    ServingError,
    Unsupported,
)
from trivet.server.grpc.errors import code_of
from trivet.server.grpc.transport import Call
from trivet.server.grpc.wire import Buffer

M = TypeVar("M", bound=Message)
INTERNAL_TEXT = "internal error; the server log has the details"


def plain(kind: type[M], answer: Callable[[M], Message]) -> Callable[[Call, Buffer], None]:
    """A handler that parses, answers and maps errors."""

    def handle(call: Call, message: Buffer) -> None:
        try:
            response = answer(parse(kind, message))
        except ServingError as error:
            call.fail(code_of(error), error.message)
            return
        call.answer([response.SerializeToString()])

    return handle


def unsendable(response: InferResponse) -> BackendFailed:
    """The error of a request whose answer raised something while it was encoded."""
    return BackendFailed(
        f"the answer of model '{response.model_name}' cannot be sent; the server log has the "
        "details"
    )


def parse(kind: type[M], message: Buffer) -> M:
    """The message, or InvalidRequest."""
    try:
        return kind.FromString(bytes(message))
    except DecodeError:
        raise InvalidRequest(f"failed to parse the {kind.DESCRIPTOR.name} message") from None


def refuse_repository_name(name: str) -> None:
    """Repositories have no names here, as in Triton."""
    if name:
        raise Unsupported("'repository_name' specification is not supported")
