"""The generate extension: flat JSON in and out, in one piece or as a stream of events."""

from math import prod

import orjson
from aiohttp import web

from trivet.backends.api import (
    InferRequest,
    InferResponse,
    InvalidRequest,
    RequestContext,
    ServingError,
    Shape,
    Signature,
    Tensor,
    TensorSpec,
)
from trivet.server.auth.restricted import Api
from trivet.server.auth.scopes import Scope
from trivet.server.core import Inference
from trivet.server.http.answers import Answer
from trivet.server.http.body import read_body
from trivet.server.http.json_document import JsonObject, parse_object
from trivet.server.http.json_fields import object_at, request_id, scalars
from trivet.server.http.json_values import flatten, output_scalar, output_text, to_array
from trivet.server.http.limits import HttpLimits
from trivet.server.http.operations import EVENTS, Operation
from trivet.server.http.routes import Call, Route
from trivet.server.http.sinks import SingleSink, StreamSink
from trivet.server.http.sse import EventStream
from trivet.server.models.routing import Admitted, Key
from trivet.server.protocol.forwarding import Forwarding
from trivet.server.protocol.outputs import require_sendable
from trivet.server.protocol.parameters import parse_parameters

_NOT_ONE_RESPONSE = (
    "generate expects model to produce exactly 1 response, use generate stream for model that "
    "generates various number of responses"
)
_GENERATE = Operation("inference", "Ask with plain JSON for one answer", "v2_fields:GenerateBody")
_STREAM = Operation(
    "inference", "The same, answers as events", "v2_fields:GenerateBody", None, (EVENTS,)
)


class Generate:
    """The handlers of `generate` and `generate_stream`."""

    def __init__(
        self, core: Inference, limits: HttpLimits, forwarding: Forwarding | None = None
    ) -> None:
        self._core = core
        self._limits = limits
        self._forwarding = forwarding

    def routes(self) -> list[Route]:
        infer, api = Scope.INFER, Api.INFERENCE
        rows = []
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            rows += [
                Route("POST", f"{model}/generate", self.generate, infer, api, _GENERATE),
                Route("POST", f"{model}/generate_stream", self.stream, infer, api, _STREAM),
            ]
        return rows

    async def generate(self, call: Call) -> web.StreamResponse:
        """Exactly one response, as one JSON object."""
        admitted, request = await self._decode(call)
        sink = SingleSink()
        context = RequestContext(client=call)
        self._core.infer(admitted, request, context, sink)
        response = await sink.result(context.cancel, _NOT_ONE_RESPONSE)
        require_sendable(response, self._limits.max_response_bytes)
        return Answer((generated_json(response),))

    async def stream(self, call: Call) -> web.StreamResponse:
        """Any number of responses, each an event. What fails before the first one has a status of
        its own; what fails later is an event."""
        admitted, request = await self._decode(call)
        context = RequestContext(client=call)
        sink = StreamSink(context.cancel, self._limits.max_pending_events)
        self._core.infer(admitted, request, context, sink)
        events = EventStream(call)
        try:
            first = await sink.next()
            await events.open()
            await _send_all(first, sink, events, self._limits.max_response_bytes)
        finally:
            if not sink.is_ended:
                # Nobody reads any more.
                context.cancel.cancel()
        return events.response

    async def _decode(self, call: Call) -> tuple[Admitted, InferRequest]:
        body = await read_body(call.request, self._limits)
        document = parse_object(bytes(body), self._limits.json)
        admitted = self._core.resolve(call.model, call.version, _key(document), call)
        call.chose(admitted)
        signature = admitted.model.signature
        request = decode_generate(document, signature, call.model, call.version)
        if self._forwarding is not None:
            request = self._forwarding.added(request, call.request.headers.items())
        return admitted, request


def _key(document: JsonObject) -> Key:
    """See `InferRequest.key`. Of what has not been checked yet: what is none is no key."""
    own = document.get("parameters")
    owners = (document, own) if isinstance(own, dict) else (document,)
    found = [owner.get("sequence_id") for owner in owners] + [document.get("id")]
    return next((each for each in found if each and isinstance(each, int | str)), "")


def decode_generate(
    document: JsonObject, signature: Signature, model: str, version: int | str | None
) -> InferRequest:
    """The request that a generate body means: keys named like an input are tensors, all others
    parameters. Raises InvalidRequest."""
    inputs: dict[str, Tensor] = {}
    parameters: JsonObject = {}
    fields = {key: value for key, value in document.items() if key not in ("id", "parameters")}
    for owner in (fields, object_at(document, "parameters", "the request")):
        for key, value in owner.items():
            if key in inputs or key in parameters:
                raise InvalidRequest(f"input '{key}' already exists in request")
            if key in signature.inputs:
                inputs[key] = _input(signature.inputs[key], value, batching=signature.batching)
            else:
                parameters[key] = value
    options = parse_parameters(scalars(parameters), allow_empty_final=False)
    return InferRequest(
        model,
        version,
        request_id(document),
        inputs,
        (),
        options.parameters,
        options.priority,
        options.timeout_us,
        options.sequence_id,
        options.sequence_start,
        options.sequence_end,
    )


def generated_json(response: InferResponse) -> bytes:
    """A response as one flat JSON object: a one-element tensor as a scalar, others as a list."""
    document: dict[str, object] = {"id": response.id} if response.id else {}
    document["model_name"] = response.model_name
    document["model_version"] = str(response.model_version)
    document.update(response.parameters)
    for tensor in response.outputs:
        is_single = prod(tensor.shape) == 1
        document[tensor.name] = (
            output_scalar(tensor) if is_single else orjson.Fragment(output_text(tensor))
        )
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


async def _send_all(
    first: InferResponse | None, sink: StreamSink, events: EventStream, max_bytes: int
) -> None:
    response = first
    try:
        while response is not None:
            require_sendable(response, max_bytes)
            await events.send(generated_json(response))
            response = await sink.next()
    except ServingError as error:
        await events.send(orjson.dumps({"error": error.message}))
    await events.close()


def _input(spec: TensorSpec, value: object, *, batching: bool) -> Tensor:
    values, _ = flatten(spec.name, value if type(value) is list else [value])
    shape = _filled(spec, len(values))
    if batching:
        shape = (1, *shape)
    array = to_array(spec.name, spec.datatype, values)
    return Tensor(spec.name, spec.datatype, shape, array.reshape(shape))


def _filled(spec: TensorSpec, num_elements: int) -> Shape:
    """The dims with their variable ones set: the innermost takes what the others leave, as 1."""
    variable = [axis for axis, dim in enumerate(spec.dims) if dim < 0]
    dims = [max(dim, 1) if dim < 0 else dim for dim in spec.dims]
    rest = prod(dims)
    if variable and rest:
        dims[variable[-1]] = num_elements // rest
    if prod(dims) != num_elements:
        raise InvalidRequest(
            f"input '{spec.name}' takes dims {list(spec.dims)}, which {num_elements} elements do "
            "not fill"
        )
    return tuple(dims)
