"""POST /v1/embeddings: texts or token ids to vectors, by the models that `encoders` finds."""

import base64
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from aiohttp import web
from pydantic import Field

from trivet.backends.api import (
    InferRequest,
    InferResponse,
    InvalidRequest,
    ModelNotFound,
    RequestContext,
    Tensor,
)
from trivet.backends.api.encoder import Task
from trivet.server.core import Payer
from trivet.server.http.answers import json_answer
from trivet.server.http.encoding.asking import ask
from trivet.server.http.encoding.chosen import Chosen, EncodingCore, choose, named_encoder
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.encoders import (
    Encoded,
    Encoder,
    find_id_encoder,
    find_text_encoder,
)
from trivet.server.http.openai.fields import parse
from trivet.server.http.openai.pooling_fields import InputFields
from trivet.server.http.openai.prompts import PLACEHOLDERS
from trivet.server.http.routes import Call
from trivet.server.http.sinks import SingleSink
from trivet.server.models.routing import Admitted

T = TypeVar("T")
MAX_DIMENSIONS = 65_536


class EmbeddingFields(InputFields):
    """The body."""

    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None

    def texts(self) -> list[str]:
        """Empty where there are token ids instead. Raises InvalidRequest."""
        return [each.text for each in self.items() if not each.ids]

    def token_ids(self) -> list[list[int]]:
        """Of each input; empty where there are texts instead. Raises InvalidRequest."""
        return [list(each.ids) for each in self.items() if each.ids]


class Embeddings:
    """The handler."""

    def __init__(self, core: EncodingCore, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    async def embed(self, call: Call) -> web.StreamResponse:
        """The vectors of some inputs, in their order."""
        fields = parse(EmbeddingFields, await read_json_body(call.request, self._limits))
        call.user = fields.user or ""
        made = await self.vectors(call, fields)
        return json_answer(_document(fields, made.vectors, made.num_tokens))

    async def vectors(self, call: Call, fields: EmbeddingFields) -> Encoded:
        """The same, for APIs that write them another way. Raises a ServingError."""
        chosen = self._chosen(call, fields.model)
        if chosen is not None:
            return await self._of_folder(call, fields, chosen)
        if texts := fields.texts():
            encoder = find_text_encoder(self._core, fields.model, call)
            encoder.check(texts)
            return await self._answer(call, fields, encoder, texts)
        token_ids = fields.token_ids()
        id_encoder = find_id_encoder(self._core, fields.model, call)
        id_encoder.check(token_ids)
        return await self._answer(call, fields, id_encoder, token_ids)

    def _chosen(self, call: Call, name: str) -> Chosen | None:
        """A model that tokenises by itself; None: one that is put together of several."""
        if name in PLACEHOLDERS and self._core.encoders():
            return choose(self._core, name, call, (Task.EMBED,))
        chosen = named_encoder(self._core, name, call)
        if chosen is not None and chosen.info.task is not Task.EMBED:
            raise ModelNotFound(f"The model `{name[:128]}` does not make embeddings.")
        return chosen

    async def _of_folder(self, call: Call, fields: EmbeddingFields, chosen: Chosen) -> Encoded:
        question, items = fields.vector_question("embedding"), fields.items()
        found = await ask(self._core, call.request_id, chosen, items, question)
        vectors = shortened(np.stack([each["embedding"] for each in found]), fields.dimensions)
        return Encoded(vectors, sum(each["num_tokens"] for each in found))

    async def _answer(
        self, call: Call, fields: EmbeddingFields, encoder: Encoder[T], inputs: Sequence[T]
    ) -> Encoded:
        payer = self._core.account()
        bill = None if payer is None else _Bill(payer)
        infer = partial(self._infer, call, None if bill is None else bill.charge)
        parts, num_tokens = [], 0
        for start in range(0, len(inputs), encoder.batch_size):
            encoded = await encoder.encode(inputs[start : start + encoder.batch_size], infer)
            parts.append(shortened(encoded.vectors, fields.dimensions))
            num_tokens += encoded.num_tokens
            if bill is not None:
                bill.settle(num_tokens)
        return Encoded(np.concatenate(parts), num_tokens)

    async def _infer(
        self, call: Call, payer: Payer | None, admitted: Admitted, inputs: dict[str, Tensor]
    ) -> InferResponse:
        request = InferRequest(admitted.name, None, call.request_id, inputs)
        sink = SingleSink()
        context = RequestContext(on_tokens=payer, client=call)
        self._core.infer(admitted, request, context, sink)
        return await sink.result(context.cancel, f"model '{admitted.name}' must give one response")


class _Bill:
    """What was charged for a request: models that count what they read charge it themselves, as an
    encoder does that is a step of an ensemble. Of others the tokens are charged here."""

    def __init__(self, payer: Payer) -> None:
        self._payer = payer
        self._num_charged = 0

    def charge(self, num_tokens: int) -> None:
        """See Payer."""
        self._num_charged += num_tokens
        self._payer(num_tokens)

    def settle(self, num_tokens: int) -> None:
        """Charges what is lacking of so many in all."""
        if num_tokens > self._num_charged:
            self.charge(num_tokens - self._num_charged)


def shortened(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """The first `dimensions` of each vector, at unit length again. Raises InvalidRequest."""
    if dimensions is None:
        return vectors
    if dimensions > vectors.shape[1]:
        raise InvalidRequest(
            f"dimensions: {dimensions} are more than the {vectors.shape[1]} that the model gives"
        )
    cut = vectors[:, :dimensions]
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    result: np.ndarray = cut / np.maximum(lengths, np.finfo(np.float32).tiny)
    return result


def _document(fields: EmbeddingFields, vectors: np.ndarray, num_tokens: int) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _written(fields, vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": fields.model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def _written(fields: EmbeddingFields, vector: np.ndarray) -> str | list[float]:
    if fields.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
