"""The infer routes: the way of nearly all requests."""

from collections.abc import Mapping, Sequence

from aiohttp import web
from aiohttp.hdrs import ACCEPT_ENCODING

from trivet.backends.api import (
    CancelToken,
    Client,
    InferRequest,
    InferResponse,
    InvalidRequest,
    RequestContext,
)
from trivet.backends.api.request import ON_HOST
from trivet.backends.api.value import record
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Inference
from trivet.server.http.answers import BINARY, JSON, NO_HEADERS, Answer, Buffer
from trivet.server.http.body import read_body, too_large
from trivet.server.http.compression import LEAST_BYTES, accepted_coding, compress, is_worth_it
from trivet.server.http.forms import Forms
from trivet.server.http.head import HEADER_LENGTH, header_length_of
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import NUMBERS, OBJECT, Operation
from trivet.server.http.plan import RequestPlan, Wishes
from trivet.server.http.raw_request import decode_raw
from trivet.server.http.routes import Call, Route
from trivet.server.http.sinks import Asked, Exchange, SingleSink
from trivet.server.http.tensors import Body, InferDecoder, encode_infer, request_of
from trivet.server.models.routing import Admitted
from trivet.server.protocol.forwarding import Forwarding
from trivet.server.protocol.outputs import fulfil, residence_of, unsendable

_NOT_ONE_RESPONSE = (
    "HTTP end point doesn't support models with decoupled transaction policy unless they send one "
    "response; use gRPC streaming or generate_stream: expected a single response"
)
_INFER = Operation(
    "inference", "Ask a model", "v2_fields:InferBody", OBJECT, (NUMBERS,), (NUMBERS,)
)


@record
class Written:
    """An answer's body, and what its head says of it."""

    parts: Sequence[Buffer]
    type: str
    headers: Mapping[str, str]


class Infer:
    """The handler of infer requests."""

    def __init__(
        self, core: Inference, limits: HttpLimits, forwarding: Forwarding | None = None
    ) -> None:
        self._core = core
        self._limits = limits
        self._forwarding = forwarding
        self._forms = Forms(limits.max_response_bytes)
        self._decoder = InferDecoder(
            core.shared_memory.read, limits.json, core.shared_memory.tensor
        )

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST", f"{model}/infer", self.infer, Scope.INFER, Api.INFERENCE, _INFER, self.begin
            )
            for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        ]

    async def infer(self, call: Call) -> web.StreamResponse:
        """Where the body, a deadline or somebody's leave has to be waited for."""
        headers = call.request.headers
        header_length = header_length_of(headers)
        body = await read_body(call.request, self._limits, align_at=header_length)
        asked = self._ask(body, header_length, call.model, call.version, headers, call)
        call.chose(asked.admitted)
        sink = SingleSink()
        self._core.infer(asked.admitted, asked.request, asked.context, sink)
        response = await sink.result(asked.context.cancel, _NOT_ONE_RESPONSE)
        written = self._write(response, asked)
        coding = self._coding(written, headers.get(ACCEPT_ENCODING))
        if coding is not None:
            written = await compressed(written, coding, self._limits.compression_level)
        return Answer(written.parts, content_type=written.type, extra_headers=written.headers)

    def begin(self, exchange: Exchange) -> None:
        """The same by callbacks."""
        body, head = exchange.body, exchange.head
        if len(body) > self._limits.max_body_bytes:
            raise too_large(f"{len(body)}", self._limits.max_body_bytes)
        headers, plan = head.message.headers, exchange.plan
        if plan is None:
            asked = self._ask(body, head.header_length, head.model, head.version, headers, head)
            exchange.plan = asked.plan
        else:
            inputs = self._decoder.inputs(plan, body, head.model)
            request = request_of(plan, "", inputs, head.model, head.version)
            admitted = self._core.resolve(head.model, head.version, request.key, head)
            asked = self._asked(admitted, request, plan.wishes, headers, head)
        exchange.expect(asked, self._end)
        self._core.infer(asked.admitted, asked.request, asked.context, exchange)

    def _end(self, exchange: Exchange) -> None:
        asked, accepted = exchange.asked, exchange.head.accepted_codings
        assert asked is not None
        response = exchange.outcome(asked.context.cancel, _NOT_ONE_RESPONSE)
        if asked.wishes.are_binary and not asked.admitted.told:
            form = self._forms.of(response)
            if form is not None and (accepted is None or form.size_bytes < LEAST_BYTES):
                exchange.answer_behind(form.begin, form.parts(response), form.size_bytes)
                return
        written = self._write(response, asked)
        coding = None if accepted is None else self._coding(written, accepted)
        if coding is None:
            exchange.answer(written.parts, written.type, written.headers)
        else:
            level = self._limits.compression_level
            exchange.after(compressed(written, coding, level), self._send)

    def _send(self, exchange: Exchange, written: Written) -> None:
        exchange.answer(written.parts, written.type, written.headers)

    def _ask(
        self,
        body: Body,
        header_length: int | None,
        model: str,
        version: int | str | None,
        headers: Mapping[str, str],
        asker: Client,
    ) -> Asked:
        if header_length == 0:
            admitted = self._core.resolve(model, version, "", asker)
            decoded = decode_raw(body, admitted.model.signature, model, version)
        elif header_length is not None and header_length > len(body):
            raise InvalidRequest(
                f"{HEADER_LENGTH} {header_length} is more than the body's {len(body)} bytes"
            )
        else:
            decoded = self._decoder.decode(body, header_length, model, version)
            admitted = self._core.resolve(model, version, decoded.request.key, asker)
        return self._asked(admitted, decoded.request, decoded.wishes, headers, asker, decoded.plan)

    def _asked(
        self,
        admitted: Admitted,
        request: InferRequest,
        wishes: Wishes,
        headers: Mapping[str, str],
        asker: Client,
        plan: RequestPlan | None = None,
    ) -> Asked:
        if self._forwarding is not None:
            request = self._forwarding.added(request, headers.items())
        if wishes.special:
            context = RequestContext(
                residence=residence_of(self._core, wishes.special), client=asker
            )
        else:
            context = RequestContext(CancelToken(), None, (), ON_HOST, client=asker)
        return Asked(admitted, request, context, wishes, plan)

    def _write(self, response: InferResponse, asked: Asked) -> Written:
        if response.size_bytes > self._limits.max_response_bytes:
            raise unsendable(response, self._limits.max_response_bytes)
        wishes = asked.wishes
        if wishes.special:
            fulfil(self._core, asked.admitted.model, response, wishes.special)
        encoded = encode_infer(response, wishes)
        text, buffers = encoded.text, encoded.buffers
        if any(map(len, buffers)):
            return Written((text, *buffers), BINARY, {HEADER_LENGTH: str(len(text))})
        return Written((text,), JSON, NO_HEADERS)

    def _coding(self, written: Written, accepted: str | None) -> str | None:
        """How a client that accepts these gets it compressed; None: not, or it is not worth it."""
        if accepted is None or not self._limits.compression_level or not is_worth_it(written.parts):
            return None
        return accepted_coding(accepted)


async def compressed(written: Written, coding: str, level: int) -> Written:
    """The same, compressed if that makes it smaller by enough."""
    packed = await compress(written.parts, coding, level)
    if packed is None:
        return written
    return Written((packed,), written.type, {**written.headers, "Content-Encoding": coding})
