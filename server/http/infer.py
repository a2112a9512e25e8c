"""The infer routes: the way of nearly all requests."""

from aiohttp import web

from trivet.backends.api import InferResponse, InvalidRequest
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Core
from trivet.server.http.answers import BINARY, JSON, Answer, Buffer
from trivet.server.http.body import read_body
from trivet.server.http.compression import accepted_coding, compress
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import NUMBERS, OBJECT, Operation
from trivet.server.http.plan import Wishes
from trivet.server.http.raw_request import decode_raw
from trivet.server.http.routes import Call, Route
from trivet.server.http.sinks import SingleSink
from trivet.server.http.tensors import Body, Decoded, InferDecoder, encode_infer
from trivet.server.protocol.forwarding import Forwarding
from trivet.server.protocol.outputs import fulfil, place, require_sendable

HEADER_LENGTH = "Inference-Header-Content-Length"
_NOT_ONE_RESPONSE = (
    "HTTP end point doesn't support models with decoupled transaction policy unless they send one "
    "response; use gRPC streaming or generate_stream: expected a single response"
)
_INFER = Operation(
    "inference", "Ask a model", "v2_fields:InferBody", OBJECT, (NUMBERS,), (NUMBERS,)
)


class Infer:
    """The handler of infer requests."""

    def __init__(
        self, core: Core, limits: HttpLimits, forwarding: Forwarding | None = None
    ) -> None:
        self._core = core
        self._limits = limits
        self._forwarding = forwarding
        self._decoder = InferDecoder(
            core.shared_memory.read, limits.json, core.shared_memory.tensor
        )

    def routes(self) -> list[Route]:
        return [
            Route("POST", f"{model}/infer", self.infer, Scope.INFER, Api.INFERENCE, _INFER)
            for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        ]

    async def infer(self, call: Call) -> web.StreamResponse:
        header_length = header_length_of(call.request)
        body = await read_body(call.request, self._limits, align_at=header_length)
        decoded = self._decode(call, body, header_length)
        request = decoded.request
        if self._forwarding is not None:
            self._forwarding.add(request, call.request.headers.items())
        if decoded.wishes.special:
            place(self._core, request, decoded.wishes.special)
        sink = SingleSink()
        self._core.infer(request, sink)
        response = await sink.result(request.cancel, _NOT_ONE_RESPONSE)
        require_sendable(response, self._limits.max_response_bytes)
        if decoded.wishes.special:
            fulfil(self._core, decoded.request, response, decoded.wishes.special)
        return await self._answer(response, decoded.wishes, call.request)

    def _decode(self, call: Call, body: Body, header_length: int | None) -> Decoded:
        if header_length == 0:
            signature = self._core.signature(call.model, call.version)
            return decode_raw(body, signature, call.model, call.version)
        if header_length is not None and header_length > len(body):
            raise InvalidRequest(
                f"{HEADER_LENGTH} {header_length} is more than the body's {len(body)} bytes"
            )
        return self._decoder.decode(body, header_length, call.model, call.version)

    async def _answer(
        self, response: InferResponse, wishes: Wishes, request: web.BaseRequest
    ) -> Answer:
        encoded = encode_infer(response, wishes)
        parts: tuple[Buffer, ...] = (encoded.text,)
        content_type, headers = JSON, {}
        if any(map(len, encoded.buffers)):
            parts = (encoded.text, *encoded.buffers)
            content_type, headers = BINARY, {HEADER_LENGTH: str(len(encoded.text))}
        coding = self._coding(request)
        if coding is not None:
            packed = await compress(parts, coding, self._limits.compression_level)
            if packed is not None:
                parts, headers = (packed,), {**headers, "Content-Encoding": coding}
        return Answer(parts, content_type=content_type, extra_headers=headers)

    def _coding(self, request: web.BaseRequest) -> str | None:
        accepted = request.headers.get("Accept-Encoding")
        if accepted is None or not self._limits.compression_level:
            return None
        return accepted_coding(accepted)


def header_length_of(request: web.BaseRequest) -> int | None:
    """How many bytes of the body are its JSON part; None: all. Raises InvalidRequest."""
    values = request.headers.getall(HEADER_LENGTH, ())
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or not (value.isascii() and value.isdigit() and len(value) <= 19):
        raise InvalidRequest(
            f"{HEADER_LENGTH} must be one decimal number, the byte length of the JSON part, got "
            f"'{', '.join(values)[:64]}'"
        )
    return int(value)
