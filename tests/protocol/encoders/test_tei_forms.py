"""TEI's forms over folders of encoders, and huggingface_hub's client, unmodified."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_folders import PAIRS, TEXTS
from huggingface_hub import InferenceClient
from llm_site import Call
from serving import RunningServer

LONG = "good bad " * 40


def client(encoders: RunningServer, model: str) -> InferenceClient:
    """TEI serves one model; which is meant here a header tells."""
    return InferenceClient(model=f"http://{encoders.http}", headers={"model": model})


@pytest.fixture(scope="module")
def vectors(repository: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(repository / "vectors/1"), device="cpu")
    found: np.ndarray = model.encode(list(TEXTS))
    return found


def test_embed_gives_a_vector_for_each_text(call: Call, vectors: np.ndarray) -> None:
    reply = call("/embed", {"inputs": list(TEXTS)})

    np.testing.assert_allclose(reply.json, vectors, atol=2e-5)
    assert reply.headers["x-compute-tokens"] == str(4 + 15 + 5 + 9)
    np.testing.assert_allclose(call("/embed", {"inputs": TEXTS[0]}).json, vectors[:1], atol=2e-5)
    raw = np.array(call("/embed", {"inputs": TEXTS[0], "normalize": False}).json)
    np.testing.assert_allclose(raw / np.linalg.norm(raw), vectors[:1], atol=2e-5)
    assert not np.allclose(raw, vectors[:1])
    assert np.shape(call("/embed", {"inputs": TEXTS[0], "dimensions": 8}).json) == (1, 8)


def test_embed_all_gives_a_vector_for_each_token(call: Call) -> None:
    found = call("/embed_all", {"inputs": ["hot dishes", "ada works there"]}).json

    assert [np.shape(each) for each in found] == [(4, 32), (5, 32)]


def test_predict_orders_labels_by_score(call: Call) -> None:
    model = {"model": "labels"}
    single = call("/predict", {"inputs": "good", **model}).json
    assert sorted(each["label"] for each in single) == ["bad", "good", "neither"]
    scores = [each["score"] for each in single]
    assert scores == sorted(scores, reverse=True)
    batch = call("/predict", {"inputs": [["good"], ["bad", "good"]], **model}).json
    assert batch[0] == single
    pair = call("/predict", {"inputs": ["bad", "good"], **model}).json
    assert pair == batch[1]
    # Which a field of pipelines, sent here, does not change.
    assert call("/predict", {"inputs": ["bad", "good"], "parameters": {}, **model}).json == pair
    raw = call("/predict", {"inputs": "good", "raw_scores": True, **model}).json
    assert sum(each["score"] for each in raw) != pytest.approx(1)


def test_rerank_with_texts_answers_as_tei_does(call: Call, repository: Path) -> None:
    from sentence_transformers import CrossEncoder

    texts = [second for _, second in PAIRS]
    body = {"model": "pairs", "query": "berlin", "texts": texts}

    found = call("/rerank", body).json

    model = CrossEncoder(str(repository / "pairs/1"), device="cpu", local_files_only=True)
    scores = model.predict([("berlin", text) for text in texts])
    order = np.argsort(-scores)
    assert [each["index"] for each in found] == order.tolist()
    np.testing.assert_allclose([each["score"] for each in found], scores[order], atol=2e-5)
    assert all("text" not in each for each in found)
    told = call("/rerank", {**body, "return_text": True, "raw_scores": True}).json
    assert [each["text"] for each in told] == [texts[index] for index in order]


def test_similarity_compares_a_sentence_with_others(call: Call, vectors: np.ndarray) -> None:
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": list(TEXTS)}}

    np.testing.assert_allclose(call("/similarity", body).json, vectors @ vectors[0], atol=2e-5)


def test_tokenize_gives_lists_of_tokens(call: Call) -> None:
    found = call("/tokenize", {"inputs": "Hot dishes.", "model": "vectors"}).json

    assert [[token["text"] for token in each] for each in found] == [
        ["[CLS]", "Hot", "dishes", ".", "[SEP]"]
    ]
    assert found[0][1] == {"id": 8, "text": "Hot", "special": False, "start": 0, "stop": 3}
    body = {"inputs": ["hot"], "model": "vectors", "add_special_tokens": False}
    assert [len(each) for each in call("/tokenize", body).json] == [1]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("vectors", {"embedding": {"pooling": "mean"}}),
        ("pairs", {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}),
    ],
)
def test_info_tells_model_and_limits(call: Call, model: str, kind: dict[str, Any]) -> None:
    info = call("/info", None, model=model).json

    assert info["model_id"] == model
    assert info["model_type"] == kind
    assert info["max_input_length"] == {"vectors": 32, "pairs": 40}[model]
    assert call("/info").status == 413  # there are several


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "text"),
    [
        ("/embed", {"inputs": LONG}, 413, "Validation", "has 82 tokens, and the model takes 32"),
        ("/embed", {"inputs": []}, 400, "Empty", "`inputs` cannot be empty"),
        ("/embed", {"inputs": 5}, 422, "Validation", "inputs"),
        ("/embed", {"inputs": "a", "prompt_name": "x"}, 413, "Validation", "passage, query"),
        ("/embed", {"inputs": "a", "model": "labels"}, 413, "Validation", "classifies texts"),
        ("/rerank", {"query": "a", "texts": [], "model": "pairs"}, 400, "Empty", "`texts`"),
        ("/predict", {"inputs": ["a", "b", "c"], "model": "labels"}, 422, "Validation", "3 texts"),
        ("/similarity", {"inputs": "a"}, 422, "Validation", "inputs"),
        ("/", {"inputs": "a", "model": "nobody"}, 422, "validation", "nobody"),
    ],
)
def test_errors_have_teis_form(
    call: Call, path: str, body: dict[str, Any], status: int, kind: str, text: str
) -> None:
    reply = call(path, body)

    assert reply.status == status
    assert reply.json["error_type"] == kind
    assert text in reply.json["error"]


def test_a_long_text_is_cut_where_the_request_says_so(call: Call) -> None:
    reply = call("/embed", {"inputs": LONG, "truncate": True, "truncation_direction": "Left"})

    assert reply.status == 200
    assert reply.headers["x-compute-tokens"] == "32"


def test_feature_extraction(encoders: RunningServer, vectors: np.ndarray) -> None:
    hub = client(encoders, "vectors")

    np.testing.assert_allclose(hub.feature_extraction(TEXTS[0]), vectors[:1], atol=2e-5)
    raw = hub.feature_extraction(TEXTS[0], normalize=False, prompt_name="query", truncate=True)
    assert raw.shape == (1, 32)


def test_sentence_similarity(encoders: RunningServer, vectors: np.ndarray) -> None:
    found = client(encoders, "vectors").sentence_similarity(TEXTS[0], list(TEXTS[1:]))

    np.testing.assert_allclose(found, vectors[1:] @ vectors[0], atol=2e-5)


def test_text_classification(encoders: RunningServer, repository: Path) -> None:
    import transformers

    hub = client(encoders, "labels")
    make: Any = transformers.pipeline
    folder = str(repository / "labels/1")

    found = hub.text_classification("very good")

    wanted = make("text-classification", model=folder, top_k=None)("very good")[0]
    assert [each.label for each in found] == [each["label"] for each in wanted]
    scores = [each["score"] for each in wanted]
    np.testing.assert_allclose([each.score for each in found], scores, atol=2e-5)
    best = hub.text_classification("very good", top_k=1, function_to_apply="sigmoid")
    assert [each.label for each in best] == [found[0].label]


def test_token_classification(encoders: RunningServer, repository: Path) -> None:
    import transformers

    hub = client(encoders, "tags")
    make: Any = transformers.pipeline
    folder = str(repository / "tags/1")

    found = hub.token_classification(TEXTS[1])

    simple = make("token-classification", model=folder, aggregation_strategy="simple")(TEXTS[1])
    assert [(each.entity_group, each.start, each.end) for each in found] == [
        (each["entity_group"], each["start"], each["end"]) for each in simple
    ]
    assert found, "nothing was found: the test says nothing"
