"""Which models take token ids for embeddings, and what these are made into."""

import asyncio
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from google.protobuf import text_format
from made_models import made_model

from trivet.backends.api import (
    Client,
    InferResponse,
    ModelNotFound,
    Signature,
    Tensor,
    Unsupported,
)
from trivet.backends.api.naming import name_in, namespace_in
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.http.openai.encoders import IdEncoder, find_id_encoder
from trivet.server.http.routes import Call
from trivet.server.models.routing import NOBODY, Admitted, Key, VersionRouter

LIMITS = """
parameters { key: "embeddings_vocabulary_size" value { string_value: "100" } }
parameters { key: "embeddings_max_tokens" value { string_value: "8" } }
"""
TEXT = 'input { name: "text" data_type: TYPE_STRING dims: 1 }'
IDS = 'input { name: "input_ids" data_type: TYPE_INT64 dims: -1 }'
MASK = 'input { name: "attention_mask" data_type: TYPE_INT64 dims: -1 }'
KINDS = 'input { name: "token_type_ids" data_type: TYPE_INT32 dims: -1 }'
OTHER = 'input { name: "position_ids" data_type: TYPE_INT64 dims: -1 }'


class FakeCore:
    """Knows some models by their configs."""

    def __init__(self, **configs: str) -> None:
        head = 'max_batch_size: 4 output { name: "vector" data_type: TYPE_FP32 dims: 2 } '
        self._configs = {
            name: text_format.Parse(head + text, ModelConfig()) for name, text in configs.items()
        }

    def resolve(
        self, name: str, version: int | str | None, key: Key = "", asker: Client = NOBODY
    ) -> Admitted:
        if name not in self._configs:
            raise ModelNotFound(name)
        config = self._configs[name]
        signature, namespace = Signature.from_config(config), namespace_in(name)
        model = made_model(name_in(name), signature, config=config, namespace=namespace)
        return VersionRouter({1: model}).choose(version, key)


def found(name: str, **configs: str) -> IdEncoder:
    call = Call(MagicMock(), "r1", "", None, "")
    return find_id_encoder(FakeCore(**configs), name, call)


def given(encoder: IdEncoder, batch: list[list[int]]) -> dict[str, np.ndarray]:
    """What the model is asked."""
    asked: dict[str, Any] = {}

    async def infer(model: Admitted, inputs: dict[str, Tensor]) -> InferResponse:
        assert model is encoder.model
        asked.update({name: tensor.numpy() for name, tensor in inputs.items()})
        vectors = Tensor.of("vector", np.zeros((len(batch), 2), np.float32))
        return InferResponse(model.name, 1, "", [vectors])

    encoded = asyncio.run(encoder.encode(batch, infer))
    assert encoded.num_tokens == sum(map(len, batch))
    return asked


def test_shorter_lists_are_padded_and_masked() -> None:
    asked = given(found("bert", bert=IDS + MASK + KINDS + LIMITS), [[7, 8, 9], [5]])
    assert asked["input_ids"].tolist() == [[7, 8, 9], [5, 0, 0]]
    assert asked["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert asked["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert asked["token_type_ids"].dtype == np.int32


def test_without_a_mask_lists_are_not_put_together() -> None:
    assert found("bag", bag=IDS + LIMITS).batch_size == 1
    assert found("bert", bert=IDS + MASK + LIMITS).batch_size == 4


def test_a_model_that_takes_ids_needs_no_tokenizer() -> None:
    assert found("bert", bert=IDS + MASK + LIMITS).model.name == "bert"


def test_a_model_of_texts_names_the_one_for_ids() -> None:
    named = 'parameters { key: "embeddings_encoder" value { string_value: "bert" } }'
    encoder = found("whole", whole=TEXT + named, bert=IDS + MASK + LIMITS)
    assert (encoder.model.name, encoder.max_tokens, encoder.vocabulary_size) == ("bert", 8, 100)


@pytest.mark.parametrize("config", [IDS + MASK, IDS + MASK + OTHER + LIMITS, TEXT, TEXT + LIMITS])
def test_who_does_not_say_that_it_takes_ids_refuses_them_and_tells_how(config: str) -> None:
    tokenizer = TEXT + "".join(
        f'output {{ name: "{name}" data_type: TYPE_INT64 dims: -1 }}'
        for name in ("input_ids", "attention_mask", "position_ids")
    )
    with pytest.raises(Unsupported, match=r"send texts.* embeddings_vocabulary_size .*_encoder"):
        found("model", model=config, model_tokenizer=tokenizer)


def test_a_named_model_that_is_not_there_is_not_found() -> None:
    named = 'parameters { key: "embeddings_encoder" value { string_value: "gone" } }'
    with pytest.raises(ModelNotFound):
        found("whole", whole=TEXT + named)


def test_the_model_that_another_one_names_is_looked_for_in_its_own_repository_first() -> None:
    texts = TEXT + 'parameters { key: "embeddings_encoder" value { string_value: "bert" } }'
    encoder = IDS + LIMITS
    configs = {"a::texts": texts, "b::texts": texts, "b::bert": encoder, "bert": encoder}
    assert found("b::texts", **configs).model.model.key == "b::bert"
    assert found("a::texts", **configs).model.model.key == "bert"
