"""Requests of as many texts as may be, over encoders that take fewer rows at a time."""

from dataclasses import replace

from http_site import open_site
from scripted_encoder import EncodingCore

MOST = 2048


async def test_texts_go_in_batches_that_the_model_takes() -> None:
    core = EncodingCore({})
    core.signatures["vectors"] = replace(core.signatures["vectors"], max_batch_size=8)
    site = await open_site(core)
    body = {"model": "vectors", "input": [f"text {number}" for number in range(20)]}
    async with site.session.post("/v1/embeddings", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert len((await answer.json(content_type=None))["data"]) == 20
    assert [request.batch_size for request in core.requests] == [8, 8, 4]
    await site.close()


async def test_as_many_documents_as_may_be_are_ranked_beside_their_query() -> None:
    """By vectors, of which there is one more then."""
    site = await open_site(EncodingCore({}))
    documents = [f"d{number}" for number in range(MOST)]
    body = {"model": "vectors", "query": "q", "documents": documents}
    async with site.session.post("/v1/rerank", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert len((await answer.json(content_type=None))["results"]) == MOST
    documents.append("one more")
    async with site.session.post("/v1/rerank", json=body) as answer:
        assert answer.status == 400
        assert "2049" in await answer.text()
    await site.close()
