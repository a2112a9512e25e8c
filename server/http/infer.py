"""The infer routes: the way of nearly all requests."""

from aiohttp import web

from trivet.backends.api import InferResponse, InvalidRequest
from trivet.server.core import Core
from trivet.server.http.answers import BINARY, JSON, Answer
from trivet.server.http.body import read_body
from trivet.server.http.limits import HttpLimits
from trivet.server.http.plan import Wishes
from trivet.server.http.raw_request import decode_raw
from trivet.server.http.routes import Call, Route
from trivet.server.http.sinks import SingleSink
from trivet.server.http.tensors import Body, Decoded, InferDecoder, encode_infer
from trivet.server.outputs import fulfil

HEADER_LENGTH = "Inference-Header-Content-Length"
_NOT_ONE_RESPONSE = (
    "HTTP end point doesn't support models with decoupled transaction policy unless they send one "
    "response; use gRPC streaming or generate_stream: expected a single response"
)


class Infer:
    """The handler of infer requests."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits
        self._decoder = InferDecoder(core.shared_memory.read, limits.json)

    def routes(self) -> list[Route]:
        return [
            Route("POST", "/v2/models/{model}/infer", self.infer),
            Route("POST", "/v2/models/{model}/versions/{version}/infer", self.infer),
        ]

    async def infer(self, call: Call) -> web.StreamResponse:
        header_length = header_length_of(call.request)
        body = await read_body(call.request, self._limits, align_at=header_length)
        decoded = self._decode(call, body, header_length)
        request = decoded.request
        sink = SingleSink()
        self._core.infer(request, sink)
        response = await sink.result(request.cancel, _NOT_ONE_RESPONSE)
        if decoded.wishes.special:
            fulfil(self._core, decoded.request, response, decoded.wishes.special)
        return _answer(response, decoded.wishes)

    def _decode(self, call: Call, body: Body, header_length: int | None) -> Decoded:
        if header_length == 0:
            signature = self._core.signature(call.model, call.version)
            return decode_raw(body, signature, call.model, call.version)
        if header_length is not None and header_length > len(body):
            raise InvalidRequest(
                f"{HEADER_LENGTH} {header_length} is more than the body's {len(body)} bytes"
            )
        return self._decoder.decode(body, header_length, call.model, call.version)


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


def _answer(response: InferResponse, wishes: Wishes) -> Answer:
    encoded = encode_infer(response, wishes)
    if not any(map(len, encoded.buffers)):
        return Answer((encoded.text,), content_type=JSON)
    return Answer(
        (encoded.text, *encoded.buffers),
        content_type=BINARY,
        extra_headers={HEADER_LENGTH: str(len(encoded.text))},
    )
