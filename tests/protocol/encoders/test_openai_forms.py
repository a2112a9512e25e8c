"""OpenAI's and vLLM's forms over folders of encoders: the numbers of sentence-transformers."""

import base64
import functools
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from encoder_folders import PAIRS, TEXTS
from llm_site import Call
from serving import RunningServer

LONG = "good bad " * 40


@pytest.fixture
def client(encoders: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"http://{encoders.http}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def vectors(repository: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(repository / "vectors/1"), device="cpu")
    found: np.ndarray = model.encode(list(TEXTS))
    return found


@functools.cache
def cross_encoder(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu", local_files_only=True)


def scores_of(repository: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    found: np.ndarray = cross_encoder(repository / "pairs/1").predict(pairs)
    return found


def test_openais_client_gets_the_vectors(client: openai.OpenAI, vectors: np.ndarray) -> None:
    answer = client.embeddings.create(model="vectors", input=list(TEXTS))

    found = np.array([each.embedding for each in answer.data])
    np.testing.assert_allclose(found, vectors, atol=2e-5)
    assert [each.index for each in answer.data] == [0, 1, 2, 3]
    assert answer.usage.prompt_tokens == 4 + 15 + 5 + 9


def test_many_texts_come_back_in_their_order(client: openai.OpenAI, vectors: np.ndarray) -> None:
    texts = [TEXTS[index % 4] for index in range(300)]

    answer = client.embeddings.create(model="vectors", input=texts)

    found = np.array([each.embedding for each in answer.data])
    np.testing.assert_allclose(found, vectors[np.arange(300) % 4], atol=2e-5)


def test_token_ids_shorter_vectors_and_prompts(
    client: openai.OpenAI, call: Call, vectors: np.ndarray
) -> None:
    ids = call("/tokenize", {"model": "vectors", "inputs": list(TEXTS)}).json
    lists = [[token["id"] for token in tokens] for tokens in ids]

    by_ids = client.embeddings.create(model="vectors", input=lists, dimensions=8)

    found = np.array([each.embedding for each in by_ids.data])
    cut = vectors[:, :8] / np.linalg.norm(vectors[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(found, cut, atol=2e-5)
    prompted = call("/v1/embeddings", {"model": "vectors", "input": "ada", "prompt_name": "query"})
    written = call("/v1/embeddings", {"model": "vectors", "input": "query : ada"})
    assert prompted.json["data"] == written.json["data"]


def test_a_long_text_is_refused_with_both_numbers_or_cut(call: Call) -> None:
    refused = call("/v1/embeddings", {"model": "vectors", "input": LONG})
    assert refused.status == 400
    assert "has 82 tokens, and the model takes 32 at most" in refused.json["error"]["message"]

    body = {"model": "vectors", "input": LONG, "truncate_prompt_tokens": -1}
    assert call("/v1/embeddings", body).json["usage"]["prompt_tokens"] == 32
    body["truncate_prompt_tokens"] = 6
    assert call("/v1/embeddings", body).json["usage"]["prompt_tokens"] == 6


def test_what_makes_no_embeddings_says_so(call: Call) -> None:
    reply = call("/v1/embeddings", {"model": "labels", "input": "a"})

    assert reply.status == 404
    assert reply.json["error"]["message"] == "The model `labels` does not make embeddings."


def test_pooling_gives_what_the_model_makes(call: Call, vectors: np.ndarray) -> None:
    plain = call("/pooling", {"model": "vectors", "input": list(TEXTS)}).json
    np.testing.assert_allclose([each["data"] for each in plain["data"]], vectors, atol=2e-5)
    coded = call("/pooling", {"model": "vectors", "input": "ada", "encoding_format": "base64"}).json
    assert np.frombuffer(base64.b64decode(coded["data"][0]["data"]), "<f4").shape == (32,)
    tokens = call("/pooling", {"model": "vectors", "input": "ada", "task": "token_embed"}).json
    assert np.shape(tokens["data"][0]["data"]) == (3, 32)
    tags = call("/pooling", {"model": "tags", "input": "ada works"}).json
    assert np.shape(tags["data"][0]["data"]) == (4, 4)
    wrong = call("/pooling", {"model": "labels", "input": "ada", "task": "embed"})
    assert wrong.status == 400
    assert "a model that makes embeddings is needed" in wrong.json["error"]["message"]


def test_classify_gives_labels_with_probabilities(call: Call) -> None:
    answer = call("/classify", {"model": "labels", "input": ["good", "very bad"]}).json

    assert answer["object"] == "list"
    for index, each in enumerate(answer["data"]):
        assert each["index"] == index
        assert each["num_classes"] == len(each["probs"]) == 3
        assert each["label"] == ("good", "bad", "neither")[int(np.argmax(each["probs"]))]
        assert sum(each["probs"]) == pytest.approx(1, abs=1e-5)


def test_score_is_the_cross_encoder_s(call: Call, repository: Path) -> None:
    firsts, seconds = ([pair[place] for pair in PAIRS] for place in (0, 1))

    for path in ("/score", "/v1/score"):
        each = call(path, {"model": "pairs", "text_1": firsts, "text_2": seconds}).json
        found = [entry["score"] for entry in each["data"]]
        np.testing.assert_allclose(found, scores_of(repository, list(PAIRS)), atol=2e-5)
    one = call("/score", {"model": "pairs", "queries": "berlin", "documents": seconds}).json
    wanted = scores_of(repository, [("berlin", text) for text in seconds])
    np.testing.assert_allclose([entry["score"] for entry in one["data"]], wanted, atol=2e-5)
    wrong = call("/score", {"model": "pairs", "text_1": ["a", "b"], "text_2": ["a", "b", "c"]})
    assert wrong.status == 400
    assert "2 texts beside 3" in wrong.json["error"]["message"]


def test_score_of_vectors_is_their_cosine(call: Call, vectors: np.ndarray) -> None:
    body = {"model": "vectors", "text_1": TEXTS[0], "text_2": list(TEXTS)}

    found = [each["score"] for each in call("/score", body).json["data"]]

    np.testing.assert_allclose(found, vectors @ vectors[0], atol=2e-5)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_orders_documents(call: Call, repository: Path, path: str) -> None:
    body = {"model": "pairs", "query": "berlin", "documents": [TEXTS[0], {"text": TEXTS[1]}, "ada"]}

    answer = call(path, {**body, "top_n": 2}).json

    scores = scores_of(repository, [("berlin", text) for text in (TEXTS[0], TEXTS[1], "ada")])
    best = np.argsort(-scores)[:2].tolist()
    assert [each["index"] for each in answer["results"]] == best
    found = [each["relevance_score"] for each in answer["results"]]
    np.testing.assert_allclose(found, scores[best], atol=2e-5)
    texts = [each["document"]["text"] for each in answer["results"]]
    assert texts == [(TEXTS[0], TEXTS[1], "ada")[index] for index in best]
    bare = call(path, {**body, "return_documents": False}).json
    assert all(set(each) == {"index", "relevance_score"} for each in bare["results"])


def test_the_only_model_of_a_task_need_not_be_named(call: Call) -> None:
    assert call("/classify", {"input": "good"}).status == 400  # labels and pairs both could
    assert call("/pooling", {"input": "good", "task": "token_classify"}).json["model"] == "tags"
    assert call("/v1/embeddings", {"model": "dummy", "input": "good"}).status == 200


def test_models_are_listed(client: openai.OpenAI) -> None:
    found = {model.id for model in client.models.list()}

    assert found == {"labels", "pairs", "tags", "vectors"}
    assert client.models.retrieve("vectors").id == "vectors"


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/rerank", {"model": "labels", "query": "a", "documents": ["b"]}, "has 3 labels"),
        ("/rerank", {"model": "pairs", "query": "a", "documents": []}, "0 documents"),
        ("/rerank", {"model": "pairs", "query": "a", "documents": [{"x": 1}]}, "documents[0].text"),
        ("/classify", {"model": "labels", "input": [""]}, "input[0]: it is empty"),
        ("/score", {"model": "pairs", "text_1": "a"}, "text_2: give it, once"),
        ("/pooling", {"model": "vectors", "input": [[99999]]}, "not in the vocabulary of"),
        ("/pooling", {"model": "vectors", "input": "a", "dimensions": 99}, "between 1 and the 32"),
        ("/pooling", {"model": "nobody", "input": "a"}, "`nobody` does not exist"),
    ],
)
def test_wrong_requests_are_told_in_openais_form(
    call: Call, path: str, body: dict[str, Any], text: str
) -> None:
    reply = call(path, body)

    assert reply.status in (400, 404)
    assert text in reply.json["error"]["message"]
