"""ModelStreamInfer: many requests and their responses on one stream.

Request errors travel inside the stream and leave it open. Responses of ordinary models come in
request order; those of decoupled models as they are made. Owned by the event loop.
"""

import logging
from collections import deque
from dataclasses import dataclass, field

from trivet.backends.api import CancelToken, InferResponse, RequestContext, ServingError
from trivet.backends.api.request import ON_HOST
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.core import Inference
from trivet.server.grpc.asking import MetadataClient, resolved
from trivet.server.grpc.codec import Decoded, Decoder, Encoder
from trivet.server.grpc.errors import code_of
from trivet.server.grpc.handlers import unsendable
from trivet.server.grpc.trace import note_arrival
from trivet.server.grpc.transport import Call, Code
from trivet.server.grpc.wire import Buffer, field_head, split_infer_request
from trivet.server.models.model import Model
from trivet.server.protocol.forwarding import Forwarding
from trivet.server.protocol.outputs import fulfil, residence_of

log = logging.getLogger(__name__)

INFER_RESPONSE_TAG = b"\x12"  # field 2 of ModelStreamInferResponse
MAX_UNREAD_RESPONSES = 4096
MAX_UNREAD_BYTES = 256 * 1024 * 1024
"""What may wait for a client that does not read, or for the answer to an earlier request of its
stream; more cancels the stream."""


@dataclass(slots=True, eq=False)
class Asked:
    """A request that went to the core."""

    decoded: Decoded
    model: Model
    cancel: CancelToken


@dataclass(slots=True, eq=False)
class Slot:
    """One request's place in the stream."""

    id: str
    is_ordered: bool
    is_ended: bool = False
    held: list[list[Buffer]] = field(default_factory=list)
    """Messages that wait for earlier requests to end."""


class InferStream:
    """The server's side of one stream."""

    def __init__(
        self,
        core: Inference,
        decoder: Decoder,
        encoder: Encoder,
        call: Call,
        forwarding: Forwarding | None = None,
    ) -> None:
        self._core = core
        self._decoder = decoder
        self._encoder = encoder
        self._call = call
        self._client = MetadataClient(call)
        self._forwarding = forwarding
        self._cancels: set[CancelToken] = set()
        self._in_order: deque[Slot] = deque()
        self._num_open = 0
        self._num_unread = 0
        self._unread_bytes = 0
        self._held_bytes = 0
        self._is_half_closed = False
        self._ends_on_error = call.metadata.get("triton_grpc_error", "").lower() == "true"
        call.on_cancel(self._cancel_all)

    # -- from the client -----------------------------------------------------------------------

    def on_message(self, message: Buffer) -> None:
        """One ModelInferRequest."""
        self._num_open += 1
        try:
            decoded = self._decoder.decode(message)
            request = decoded.request
            if self._forwarding is not None:
                request = self._forwarding.added(request, self._call.metadata.items())
            if self._core.tracing.tracer is not None:
                note_arrival(self._call)
            admitted = resolved(self._core, request, self._call, self._client)
        except ServingError as error:
            slot = Slot(_id_of(message), is_ordered=True)
            self._in_order.append(slot)
            self._fail(slot, error)
            return
        slot = Slot(request.id, is_ordered=not admitted.model.signature.decoupled)
        if slot.is_ordered:
            self._in_order.append(slot)
        residence = residence_of(self._core, decoded.wishes) if decoded.wishes else ON_HOST
        context = RequestContext(
            CancelToken(), self._call.deadline, (), residence, client=self._client
        )
        self._cancels.add(context.cancel)
        sink = StreamSink(self, slot, Asked(decoded, admitted.model, context.cancel))
        self._core.infer(admitted, request, context, sink)

    def on_half_close(self) -> None:
        """The client sends no more: the call ends when all its requests have."""
        self._is_half_closed = True
        self._finish_if_done()

    def _cancel_all(self) -> None:
        for slot in self._in_order:
            slot.held.clear()
        for cancel in list(self._cancels):
            cancel.cancel()

    # -- to the client -------------------------------------------------------------------------

    def respond(self, slot: Slot, asked: Asked, response: InferResponse, *, final: bool) -> None:
        """One response of a request."""
        try:
            in_region = fulfil(self._core, asked.model, response, asked.decoded.wishes)
            pieces = self._encoder.encode(response, in_region, final=final)
        except ServingError as error:
            self.fail(slot, asked, error)
            return
        except Exception:
            log.exception("an answer cannot be sent; request %s", response.id or "-")
            # The door of answers, as for single ones.
            self.fail(slot, asked, unsendable(response))
            return
        size = sum(map(len, pieces))
        self._write(slot, [field_head(INFER_RESPONSE_TAG, size), *pieces])
        if final:
            self._end(slot, asked)

    def finish(self, slot: Slot, asked: Asked) -> None:
        """The end of a request's responses, which only clients that asked for it see."""
        if asked.decoded.wants_empty_final:
            request = asked.decoded.request
            message = pb.ModelStreamInferResponse()
            empty = message.infer_response
            empty.model_name, empty.id = request.model_name, request.id
            empty.model_version = str(request.model_version or "")
            empty.parameters["triton_final_response"].bool_param = True
            self._write(slot, [message.SerializeToString()])
        self._end(slot, asked)

    def fail(self, slot: Slot, asked: Asked, error: ServingError) -> None:
        """A request ends with an error."""
        self._cancels.discard(asked.cancel)
        self._fail(slot, error)

    def _fail(self, slot: Slot, error: ServingError) -> None:
        if slot.is_ended:
            return
        if self._ends_on_error:
            self._call.fail(code_of(error), error.message)
            self._cancel_all()
            return
        message = pb.ModelStreamInferResponse(error_message=error.message)
        message.infer_response.id = slot.id
        self._write(slot, [message.SerializeToString()])
        self._close(slot)

    def _end(self, slot: Slot, asked: Asked) -> None:
        self._cancels.discard(asked.cancel)
        self._close(slot)

    def _close(self, slot: Slot) -> None:
        if slot.is_ended:
            return
        slot.is_ended = True
        self._num_open -= 1
        while self._in_order and self._in_order[0].is_ended:
            self._in_order.popleft()
            if self._in_order:
                self._flush(self._in_order[0])
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._is_half_closed and self._num_open == 0:
            self._call.finish()

    def _write(self, slot: Slot, message: list[Buffer]) -> None:
        if slot.is_ordered and slot is not self._in_order[0]:
            slot.held.append(message)
            self._held_bytes += sum(map(len, message))
            self._check_waiting()
        else:
            self._send(message)

    def _flush(self, slot: Slot) -> None:
        for message in slot.held:
            self._held_bytes -= sum(map(len, message))
            self._send(message)
        slot.held.clear()

    def _send(self, message: list[Buffer]) -> None:
        if not self._call.is_writable:
            if self._num_unread == 0:
                self._call.on_writable(self._caught_up)
            self._num_unread += 1
            self._unread_bytes += sum(map(len, message))
            if self._check_waiting():
                return
        self._call.send(message)

    def _check_waiting(self) -> bool:
        """Whether too much waits: then the stream has ended."""
        waiting_bytes = self._unread_bytes + self._held_bytes
        if self._num_unread <= MAX_UNREAD_RESPONSES and waiting_bytes <= MAX_UNREAD_BYTES:
            return False
        self._call.fail(
            Code.RESOURCE_EXHAUSTED,
            f"{self._num_unread} responses of this stream wait unread, {waiting_bytes} bytes with "
            f"those behind earlier requests; the limits are {MAX_UNREAD_RESPONSES} and "
            f"{MAX_UNREAD_BYTES}: read while you send",
        )
        self._cancel_all()
        return True

    def _caught_up(self) -> None:
        self._num_unread = self._unread_bytes = 0


class StreamSink:
    """Brings one request's responses into its stream."""

    __slots__ = ("_asked", "_slot", "_stream")

    def __init__(self, stream: InferStream, slot: Slot, asked: Asked) -> None:
        self._stream = stream
        self._slot = slot
        self._asked = asked

    def send(self, response: InferResponse, *, final: bool) -> None:
        """One response."""
        self._stream.respond(self._slot, self._asked, response, final=final)

    def finish(self) -> None:
        """The end without a response."""
        self._stream.finish(self._slot, self._asked)

    def fail(self, error: ServingError) -> None:
        """The end with an error."""
        self._stream.fail(self._slot, self._asked, error)


def _id_of(message: Buffer) -> str:
    """The request id of a message that could not be decoded, as far as it can be read."""
    try:
        return split_infer_request(message).id.decode()
    except ValueError:
        return ""
