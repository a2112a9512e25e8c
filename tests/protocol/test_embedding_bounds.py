"""Texts are bounded before the tokenizer that all embeddings share reads them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_site import Call, caller
from serving import start_server
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

EXAMPLE = Path(__file__).parents[2] / "model_repository" / "minilm_tokenizer"
MAX_CHARACTERS = 128 * 256
MAX_OF_ENCODER = 640
ENCODER = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self._sums(request) for request in requests]

    def _sums(self, request):
        ids = pb_utils.get_input_tensor_by_name(request, "input_ids").as_numpy()
        mask = pb_utils.get_input_tensor_by_name(request, "attention_mask").as_numpy()
        vectors = np.stack([ids.sum(1), mask.sum(1)], axis=1).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("vector", vectors)])
"""
ENCODER_CONFIG = """
backend: "python"
max_batch_size: 64
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [ { name: "vector" data_type: TYPE_FP32 dims: [ 2 ] } ]
"""


def small_tokenizer() -> str:
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    text: str = tokenizer.to_str()
    return text


def write_models(repository: Path) -> None:
    write(
        repository / "words_tokenizer",
        (EXAMPLE / "config.pbtxt").read_text(),
        {
            "model.py": (EXAMPLE / "1" / "model.py").read_text(),
            "tokenizer.json": small_tokenizer(),
        },
    )
    write(repository / "words", ENCODER_CONFIG, {"model.py": ENCODER})
    limits = {"embeddings_max_tokens": 5, "embeddings_tokenizer": "words_tokenizer"}
    more = "".join(
        f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'
        for name, value in limits.items()
    )
    write(repository / "few", ENCODER_CONFIG + more, {"model.py": ENCODER})


def write(folder: Path, config: str, files: dict[str, str]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    for name, text in files.items():
        (folder / "1" / name).write_text(text)


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    repository = tmp_path_factory.mktemp("embeddings")
    write_models(repository)
    server = start_server(repository)
    yield caller(server)
    server.end()


def embedded(call: Call, texts: list[str], model: str = "words") -> list[list[float]]:
    reply = call("/v1/embeddings", {"model": model, "input": texts})
    assert reply.status == 200, reply.body
    return [each["embedding"] for each in reply.json["data"]]


def test_texts_of_any_sizes_together_are_as_each_alone(call: Call) -> None:
    texts = ["a", "a a b", "a " * 90, "b " * 16_000, "a" * MAX_CHARACTERS, "a b " * 4_000]
    together = embedded(call, texts)
    assert together == [embedded(call, [text])[0] for text in texts]
    assert together[0] == [2 + 4 + 3, 3]  # [CLS] a [SEP]
    assert together[3][1] == 256


@pytest.mark.rows("O35")
@pytest.mark.parametrize(
    ("model", "size", "limit"),
    [("words", MAX_CHARACTERS + 1, MAX_CHARACTERS), ("few", MAX_OF_ENCODER + 1, MAX_OF_ENCODER)],
)
def test_long_text_is_refused_with_the_limit(call: Call, model: str, size: int, limit: int) -> None:
    reply = call("/v1/embeddings", {"model": model, "input": ["a", "a" * size]})
    assert reply.status == 400
    told = reply.json["error"]["message"]
    assert f"{size} characters" in told
    assert str(limit) in told


def test_long_text_in_a_tensor_is_refused_with_the_limit(call: Call) -> None:
    text: dict[str, Any] = {"name": "text", "datatype": "BYTES", "shape": [1, 1]}
    body = {"inputs": [text | {"data": ["a " * MAX_CHARACTERS]}]}
    reply = call("/v2/models/words_tokenizer/infer", json.dumps(body).encode())
    assert reply.status == 400
    assert f"at most {MAX_CHARACTERS} may be" in reply.json["error"]
