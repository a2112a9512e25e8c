"""Clients of other houses, unmodified."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_folders import PAIRS, TEXTS
from patience import patience
from serving import RunningServer

QUERY = PAIRS[0][0]
DOCUMENTS = ["berlin is a city", "a trivet carries hot dishes", "cold table"]


@pytest.fixture(scope="module")
def vectors(repository: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(repository / "vectors/1"), device="cpu")
    found: np.ndarray = model.encode(list(TEXTS))
    return found


@pytest.fixture(scope="module")
def scores(repository: Path) -> np.ndarray:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(repository / "pairs/1"), device="cpu", local_files_only=True)
    found: np.ndarray = model.predict([(QUERY, text) for text in DOCUMENTS])
    return found


def test_langchain_s_openai_embeddings(encoders: RunningServer, vectors: np.ndarray) -> None:
    import langchain_openai as langchain

    # Otherwise it sends token ids of OpenAI's vocabulary.
    made = langchain.OpenAIEmbeddings(
        model="vectors",
        base_url=f"http://{encoders.http}/v1",
        api_key="none",
        check_embedding_ctx_length=False,
        timeout=patience(),
    )

    found = made.embed_documents(list(TEXTS))
    alone = made.embed_query(TEXTS[0])

    np.testing.assert_allclose(found, vectors, atol=1e-5)
    np.testing.assert_allclose(alone, vectors[0], atol=1e-5)


def test_ollama_s_embeddings(encoders: RunningServer, vectors: np.ndarray) -> None:
    import ollama

    with ollama.Client(f"http://{encoders.http}", timeout=patience()) as client:
        found = client.embed("vectors", list(TEXTS))
        cut = client.embed("vectors:latest", TEXTS[0], dimensions=4)
        older = client.embeddings("vectors", TEXTS[0])
        shown = client.show("vectors")

    np.testing.assert_allclose(found.embeddings, vectors, atol=1e-5)
    assert found.prompt_eval_count is not None
    assert found.prompt_eval_count > len(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(cut.embeddings[0]), 1, atol=1e-5)
    assert len(cut.embeddings[0]) == 4
    np.testing.assert_allclose(older.embedding, vectors[0], atol=1e-5)
    assert shown.capabilities == ["embedding"]


@pytest.fixture
def asked(encoders: RunningServer) -> Iterator[dict[str, Any]]:
    """What Cohere's clients are made with; they leave a connection of their own open."""
    import httpx

    with httpx.Client(timeout=patience()) as client:
        yield {
            "api_key": "none",
            "base_url": f"http://{encoders.http}",
            "httpx_client": client,
        }


@pytest.mark.parametrize("name", ["ClientV2", "Client"])
def test_cohere_s_rerank(asked: dict[str, Any], scores: np.ndarray, name: str) -> None:
    import cohere

    client = getattr(cohere, name)(**asked)

    answer = client.rerank(model="pairs", query=QUERY, documents=DOCUMENTS, top_n=2)

    order = np.argsort(-scores)[:2]
    assert [each.index for each in answer.results] == order.tolist()
    found = [each.relevance_score for each in answer.results]
    np.testing.assert_allclose(found, scores[order], rtol=1e-4)


def test_cohere_s_client_raises_its_own_errors(asked: dict[str, Any]) -> None:
    import cohere

    with pytest.raises(cohere.errors.NotFoundError, match="`nobody` does not exist"):
        cohere.ClientV2(**asked).rerank(model="nobody", query=QUERY, documents=DOCUMENTS)
