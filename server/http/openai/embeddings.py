"""POST /v1/embeddings: a tokenizer model and an encoder model, or an ensemble that is both."""

import base64
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from aiohttp import web
from pydantic import Field

from trivet.backends.api import (
    DataType,
    InferRequest,
    InferResponse,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    Signature,
    Tensor,
    Unsupported,
    parameter,
)
from trivet.server.core import Core
from trivet.server.http.answers import json_answer
from trivet.server.http.limits import HttpLimits
from trivet.server.http.openai.bodies import read_json_body
from trivet.server.http.openai.errors import answers_errors
from trivet.server.http.openai.fields import Fields, Listed, parse
from trivet.server.http.routes import Call, Route
from trivet.server.http.sinks import SingleSink

MAX_INPUTS = 2048
MAX_DIMENSIONS = 65_536
TOKENIZER = "embeddings_tokenizer"
"""The encoder's parameter that names its tokenizer; without it, that is `<encoder>_tokenizer`."""
_MASK = "attention_mask"


class EmbeddingFields(Fields):
    """The body."""

    model: str
    input: str | Listed[str] | Listed[int] | Listed[Listed[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None = None
    user: str | None = None

    def texts(self) -> list[str]:
        """Raises InvalidRequest, Unsupported."""
        given = [self.input] if isinstance(self.input, str) else self.input
        if not 1 <= len(given) <= MAX_INPUTS:
            raise InvalidRequest(f"input: {len(given)} texts; 1 to {MAX_INPUTS} may be")
        texts: list[str] = []
        for index, text in enumerate(given):
            if not isinstance(text, str):
                raise Unsupported("input: token ids are not offered here; send texts")
            if not text:
                raise InvalidRequest(f"input[{index}]: it is empty")
            texts.append(text)
        return texts


@dataclass(frozen=True, slots=True)
class Encoder:
    """Two models that together turn texts into vectors, or one that takes texts."""

    name: str
    tokenizer: str
    """Empty for a model that takes texts itself."""
    text_input: str
    inputs: tuple[str, ...]
    output: str
    batch_size: int
    """Texts in one request."""


class Embeddings:
    """The handler."""

    def __init__(self, core: Core, limits: HttpLimits) -> None:
        self._core = core
        self._limits = limits

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/embeddings", answers_errors(self.embed))]

    async def embed(self, call: Call) -> web.StreamResponse:
        """The vectors of some texts, in their order."""
        fields = parse(EmbeddingFields, await read_json_body(call.request, self._limits))
        texts = fields.texts()
        encoder = find_encoder(self._core, fields.model)
        parts, num_tokens = [], 0
        for start in range(0, len(texts), encoder.batch_size):
            batch = texts[start : start + encoder.batch_size]
            vectors, count = await self._encode(encoder, call.request_id, batch)
            parts.append(shortened(vectors, fields.dimensions))
            num_tokens += count
        return json_answer(_document(fields, np.concatenate(parts), num_tokens))

    async def _encode(
        self, encoder: Encoder, request_id: str, texts: list[str]
    ) -> tuple[np.ndarray, int]:
        """Vectors, float32 [texts, dimensions], and the number of tokens."""
        packed = np.array([[text.encode()] for text in texts], dtype=object)
        given = {encoder.text_input: Tensor.of(encoder.text_input, packed)}
        tokens = await self._infer(encoder.tokenizer or encoder.name, request_id, given)
        if not encoder.tokenizer:
            return _vectors(encoder, tokens), _num_tokens(tokens)
        found = {tensor.name: tensor for tensor in tokens.outputs}
        inputs = {name: found[name] for name in encoder.inputs}
        encoded = await self._infer(encoder.name, request_id, inputs)
        first = next(iter(inputs.values()))
        count = _num_tokens(tokens) if _MASK in found else first.numpy().size
        return _vectors(encoder, encoded), count

    async def _infer(self, model: str, request_id: str, inputs: dict[str, Tensor]) -> InferResponse:
        request = InferRequest(model, None, request_id, inputs)
        sink = SingleSink()
        self._core.infer(request, sink)
        return await sink.result(request.cancel, f"model '{model}' must give one response")


def find_encoder(core: Core, name: str) -> Encoder:
    """The encoder of that name with its tokenizer. Raises ModelNotFound when there is none."""
    try:
        encoder = core.signature(name, None)
        whole = _whole_encoder(name, encoder)
        if whole is not None:
            return whole
        tokenizer_name = parameter(core.model_config(name, None), TOKENIZER, f"{name}_tokenizer")
        tokenizer = core.signature(tokenizer_name, None)
    except (ModelNotFound, NotFound):
        raise _no_encoder(core, name) from None
    outputs = [spec for spec in encoder.outputs.values() if _is_vector(spec.datatype, spec.dims)]
    texts = [spec for spec in tokenizer.inputs.values() if spec.datatype is DataType.BYTES]
    fits = encoder.inputs.keys() <= tokenizer.outputs.keys()
    size = min(encoder.max_batch_size, tokenizer.max_batch_size)
    if not (fits and size and len(outputs) == 1 and len(texts) == len(tokenizer.inputs) == 1):
        raise _no_encoder(core, name)
    return Encoder(
        name, tokenizer_name, texts[0].name, tuple(encoder.inputs), outputs[0].name, size
    )


def _whole_encoder(name: str, signature: Signature) -> Encoder | None:
    """A model that takes a text and gives a vector, as an ensemble with its tokenizer does."""
    texts = [spec for spec in signature.inputs.values() if spec.datatype is DataType.BYTES]
    outputs = [spec for spec in signature.outputs.values() if _is_vector(spec.datatype, spec.dims)]
    size = signature.max_batch_size
    if not size or not len(texts) == len(signature.inputs) == len(outputs) == 1:
        return None
    return Encoder(name, "", texts[0].name, (), outputs[0].name, size)


def _vectors(encoder: Encoder, response: InferResponse) -> np.ndarray:
    return next(tensor for tensor in response.outputs if tensor.name == encoder.output).numpy()


def _num_tokens(response: InferResponse) -> int:
    """As the mask counts them; 0 where there is none."""
    masks = [tensor.numpy() for tensor in response.outputs if tensor.name == _MASK]
    return sum(int(mask.sum()) for mask in masks)


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


def _is_vector(datatype: DataType, dims: tuple[int, ...]) -> bool:
    return datatype is DataType.FP32 and len(dims) == 1


def _no_encoder(core: Core, name: str) -> ModelNotFound:
    try:
        core.signature(name, None)
    except ModelNotFound:
        return ModelNotFound(f"The model `{name[:128]}` does not exist.")
    return ModelNotFound(
        f"The model `{name[:128]}` does not make embeddings: that takes a tokenizer model, named "
        f"`{name[:128]}_tokenizer` or in its parameter {TOKENIZER}, whose outputs are its inputs, "
        "batches (max_batch_size) in both, and one FP32 vector as output."
    )


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
