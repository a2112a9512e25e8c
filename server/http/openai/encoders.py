"""Which models make embeddings: an encoder with its tokenizer, or one that takes texts itself; and
which take token ids, past any tokenizer."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from trivet.backends.api import (
    DataType,
    InferResponse,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    Signature,
    Tensor,
    TensorSpec,
    Unsupported,
    parameter,
)
from trivet.backends.api.naming import key_of
from trivet.server.core import Resolving
from trivet.server.http.routes import Call
from trivet.server.models.model import Model
from trivet.server.models.routing import Admitted

T_contra = TypeVar("T_contra", contravariant=True)
TOKENIZER = "embeddings_tokenizer"
"""The encoder's parameter that names its tokenizer; without it, that is `<encoder>_tokenizer`."""
ENCODER = "embeddings_encoder"
"""The parameter, of a model that takes texts itself, that names the one for token ids."""
VOCABULARY, MAX_TOKENS = "embeddings_vocabulary_size", "embeddings_max_tokens"
"""Parameters of an encoder that takes token ids: below the one they are, and no more than the other
at a time. A tokenizer keeps to both by itself; without it nobody would."""
MAX_CHARACTERS = "embeddings_max_characters"
"""A parameter of the model that gets the texts: no longer ones reach it, since tokenizers take some
hundred times a text's bytes, whatever they leave of it."""
USUAL_MAX_CHARACTERS = 1 << 20
CHARACTERS_OF_TOKEN = 128
"""More than the longest token of any usual vocabulary: a text of so many for each token that the
encoder takes is cut anyway."""
_MASK = "attention_mask"
_IDS = "input_ids"
_ID_INPUTS = {_IDS, _MASK, "token_type_ids"}
"""What is known to be made of token ids: by the names that all exporters give them."""


class Infer(Protocol):
    """Asks a model for its one response. Raises a ServingError."""

    async def __call__(self, model: Admitted, inputs: dict[str, Tensor]) -> InferResponse: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """float32 [inputs, dimensions], and how many tokens they were made of."""

    vectors: np.ndarray
    num_tokens: int


class Encoder(Protocol[T_contra]):
    """Makes vectors of inputs of one kind."""

    @property
    def batch_size(self) -> int:
        """How many inputs there may be at a time."""

    async def encode(self, batch: Sequence[T_contra], infer: Infer) -> Encoded:
        """Their vectors. Raises a ServingError."""


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Two models that together turn texts into vectors, or one that takes texts."""

    model: Admitted
    tokenizer: Admitted | None
    """None for a model that takes texts itself."""
    text_input: str
    inputs: tuple[str, ...]
    output: str
    batch_size: int

    def check(self, texts: Sequence[str]) -> None:
        """Raises InvalidRequest for texts that are too long to be tokenised."""
        model = self.tokenizer or self.model
        given = parameter(model.model.config, MAX_CHARACTERS)
        limit = int(given) if given.isdecimal() else self._usual_limit()
        for index, text in enumerate(texts):
            if len(text) > limit:
                raise InvalidRequest(
                    f"input[{index}]: {len(text)} characters are more than the {limit} that model "
                    f"'{model.name}' takes (its parameter {MAX_CHARACTERS})"
                )

    def _usual_limit(self) -> int:
        tokens = parameter(self.model.model.config, MAX_TOKENS)
        return int(tokens) * CHARACTERS_OF_TOKEN if tokens.isdecimal() else USUAL_MAX_CHARACTERS

    async def encode(self, batch: Sequence[str], infer: Infer) -> Encoded:
        """See Encoder."""
        packed = np.array([[text.encode()] for text in batch], dtype=object)
        given = {self.text_input: Tensor.of(self.text_input, packed)}
        tokens = await infer(self.tokenizer or self.model, given)
        if self.tokenizer is None:
            return Encoded(_output(tokens, self.output), _num_tokens(tokens))
        found = {tensor.name: tensor for tensor in tokens.outputs}
        inputs = {name: found[name] for name in self.inputs}
        encoded = await infer(self.model, inputs)
        first = next(iter(inputs.values()))
        count = _num_tokens(tokens) if _MASK in found else first.numpy().size
        return Encoded(_output(encoded, self.output), count)


@dataclass(frozen=True, slots=True)
class IdEncoder:
    """A model that turns token ids into vectors."""

    model: Admitted
    inputs: tuple[TensorSpec, ...]
    output: str
    batch_size: int
    """1 without a mask, which tells padding from tokens."""
    vocabulary_size: int
    max_tokens: int

    async def encode(self, batch: Sequence[Sequence[int]], infer: Infer) -> Encoded:
        """See Encoder."""
        encoded = await infer(self.model, self._tensors(batch))
        return Encoded(_output(encoded, self.output), sum(map(len, batch)))

    def check(self, inputs: Sequence[Sequence[int]]) -> None:
        """Raises InvalidRequest for ids that the model does not take."""
        for index, ids in enumerate(inputs):
            if len(ids) > self.max_tokens:
                raise InvalidRequest(
                    f"input[{index}]: {len(ids)} token ids are more than the {self.max_tokens} "
                    f"that model '{self.model.name}' takes (its parameter {MAX_TOKENS})"
                )
            if max(ids) >= self.vocabulary_size:
                raise InvalidRequest(
                    f"input[{index}]: token id {max(ids)} is not in the vocabulary of "
                    f"{self.vocabulary_size} of model '{self.model.name}'"
                )

    def _tensors(self, inputs: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        # Each of them [lists, longest list].
        longest = max(map(len, inputs))
        values = {name: np.zeros((len(inputs), longest), np.int64) for name in _ID_INPUTS}
        for row, ids in enumerate(inputs):
            values[_IDS][row, : len(ids)] = ids
            values[_MASK][row, : len(ids)] = 1
        return {
            spec.name: Tensor.of(spec.name, values[spec.name].astype(spec.datatype.dtype))
            for spec in self.inputs
        }


def find_text_encoder(core: Resolving, name: str, call: Call) -> TextEncoder:
    """The encoder of that name with its tokenizer. Raises ModelNotFound when there is none."""
    return _text_encoder(core, _resolved(core, name, call), call)


def _resolved(core: Resolving, name: str, call: Call) -> Admitted:
    try:
        admitted = core.resolve(name, call.version, call.request_id, call)
    except ModelNotFound:
        raise ModelNotFound(f"The model `{name[:128]}` does not exist.") from None
    call.chose(admitted)
    return admitted


def _named_by(core: Resolving, model: Model, name: str, call: Call) -> Admitted:
    """A model that another one's config names: in its own namespace, if there are any, first."""
    if model.namespace:
        with suppress(ModelNotFound, NotFound):
            own = key_of(model.namespace, name)
            return core.resolve(own, None, call.request_id, call)
    return core.resolve(name, None, call.request_id, call)


def _text_encoder(core: Resolving, admitted: Admitted, call: Call) -> TextEncoder:
    model = admitted.model
    name, encoder = model.name, model.signature
    whole = _whole_encoder(admitted, encoder)
    if whole is not None:
        return whole
    try:
        named = parameter(model.config, TOKENIZER, f"{name}_tokenizer")
        made_by = _named_by(core, model, named, call)
    except (ModelNotFound, NotFound):
        raise _no_encoder(name) from None
    tokenizer = made_by.model.signature
    outputs = [spec for spec in encoder.outputs.values() if _is_vector(spec.datatype, spec.dims)]
    texts = [spec for spec in tokenizer.inputs.values() if spec.datatype is DataType.BYTES]
    fits = encoder.inputs.keys() <= tokenizer.outputs.keys()
    size = min(encoder.max_batch_size, tokenizer.max_batch_size)
    if not (fits and size and len(outputs) == 1 and len(texts) == len(tokenizer.inputs) == 1):
        raise _no_encoder(name)
    return TextEncoder(
        admitted, made_by, texts[0].name, tuple(encoder.inputs), outputs[0].name, size
    )


def _whole_encoder(admitted: Admitted, signature: Signature) -> TextEncoder | None:
    """A model that takes a text and gives a vector, as an ensemble with its tokenizer does."""
    texts = [spec for spec in signature.inputs.values() if spec.datatype is DataType.BYTES]
    outputs = [spec for spec in signature.outputs.values() if _is_vector(spec.datatype, spec.dims)]
    size = signature.max_batch_size
    if not size or not len(texts) == len(signature.inputs) == len(outputs) == 1:
        return None
    return TextEncoder(admitted, None, texts[0].name, (), outputs[0].name, size)


def find_id_encoder(core: Resolving, name: str, call: Call) -> IdEncoder:
    """The model that takes token ids where texts would go to `name`. Raises ModelNotFound when that
    makes no embeddings, and Unsupported when it makes them of texts alone."""
    asked = admitted = _resolved(core, name, call)
    # Nothing in an ensemble says which of its inner tensors ids are, so it names a model.
    named = parameter(asked.model.config, ENCODER, name)
    if named != name:
        try:
            admitted = _named_by(core, asked.model, named, call)
        except (ModelNotFound, NotFound):
            raise _no_encoder(name) from None
    signature, config = admitted.model.signature, admitted.model.config
    outputs = [spec for spec in signature.outputs.values() if _is_vector(spec.datatype, spec.dims)]
    sizes = [parameter(config, key) for key in (VOCABULARY, MAX_TOKENS)]
    fits = _takes_ids(signature) and all(map(str.isdecimal, sizes))
    if not (fits and signature.max_batch_size and len(outputs) == 1):
        _text_encoder(core, asked, call)
        raise Unsupported(
            f"input: model '{named}' makes no embeddings of token ids; send texts. It would with "
            f"an input {_IDS} (and {_MASK}, token_type_ids) and the parameters {VOCABULARY} and "
            f"{MAX_TOKENS}, or with the name of a model that has these in its parameter {ENCODER}"
        )
    inputs = signature.inputs
    size = signature.max_batch_size if _MASK in inputs else 1
    return IdEncoder(admitted, tuple(inputs.values()), outputs[0].name, size, *map(int, sizes))


def _takes_ids(signature: Signature) -> bool:
    specs = signature.inputs.values()
    integers = (DataType.INT32, DataType.INT64)
    return (
        _IDS in signature.inputs
        and signature.inputs.keys() <= _ID_INPUTS
        and all(spec.datatype in integers and len(spec.dims) == 1 for spec in specs)
    )


def _output(response: InferResponse, name: str) -> np.ndarray:
    return next(tensor for tensor in response.outputs if tensor.name == name).numpy()


def _num_tokens(response: InferResponse) -> int:
    """As the mask counts them; 0 where there is none."""
    masks = [tensor.numpy() for tensor in response.outputs if tensor.name == _MASK]
    return sum(int(mask.sum()) for mask in masks)


def _is_vector(datatype: DataType, dims: tuple[int, ...]) -> bool:
    return datatype is DataType.FP32 and len(dims) == 1


def _no_encoder(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"The model `{name[:128]}` does not make embeddings: that takes a tokenizer model, named "
        f"`{name[:128]}_tokenizer` or in its parameter {TOKENIZER}, whose outputs are its inputs, "
        "batches (max_batch_size) in both, and one FP32 vector as output."
    )
