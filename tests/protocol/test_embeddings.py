"""/v1/embeddings over the example encoder: OpenAI's shape, the encoder's own numbers."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import tritonclient.http as httpclient
from llm_site import Call, Reply, caller, open_models
from serving import RunningServer

TEXTS = ["A trivet carries hot dishes.", "Hot.", "三脚架"]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with open_models("minilm", "minilm_tokenizer", "add_sub") as opened:
        yield opened


@pytest.fixture
def call(server: RunningServer) -> Call:
    return caller(server)


def embed(call: Call, given: object, **fields: Any) -> Reply:
    return call("/v1/embeddings", {"model": "minilm", "input": given, **fields})


def vectors(reply: Reply) -> np.ndarray:
    assert reply.status == 200, reply.body
    assert [each["index"] for each in reply.json["data"]] == list(range(len(reply.json["data"])))
    return np.array([each["embedding"] for each in reply.json["data"]], dtype=np.float32)


def token_ids(server: RunningServer, texts: list[str]) -> list[list[int]]:
    """As the tokenizer model makes them, with the marks around each text."""
    with httpclient.InferenceServerClient(server.http) as client:
        text = httpclient.InferInput("text", [len(texts), 1], "BYTES")
        text.set_data_from_numpy(np.array([[each.encode()] for each in texts], dtype=object))
        tokens = client.infer("minilm_tokenizer", [text])
        ids, masks = tokens.as_numpy("input_ids"), tokens.as_numpy("attention_mask")
        return [row[mask == 1].tolist() for row, mask in zip(ids, masks, strict=True)]


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0) as made:
        yield made


def encoded(server: RunningServer, texts: list[str]) -> tuple[np.ndarray, int]:
    """Vectors and tokens by the two models called one after the other."""
    with httpclient.InferenceServerClient(server.http) as client:
        text = httpclient.InferInput("text", [len(texts), 1], "BYTES")
        text.set_data_from_numpy(np.array([[each.encode()] for each in texts], dtype=object))
        tokens = client.infer("minilm_tokenizer", [text])
        inputs = []
        for name in ("input_ids", "attention_mask"):
            array = tokens.as_numpy(name)
            inputs.append(httpclient.InferInput(name, list(array.shape), "INT64"))
            inputs[-1].set_data_from_numpy(array)
        result: np.ndarray = client.infer("minilm", inputs).as_numpy("sentence_embedding")
        return result, int(tokens.as_numpy("attention_mask").sum())


def test_vectors_are_the_encoder_s(call: Call, server: RunningServer) -> None:
    reply = embed(call, TEXTS)
    expected, num_tokens = encoded(server, TEXTS)
    np.testing.assert_allclose(vectors(reply), expected, atol=1e-6)
    assert reply.json["object"] == "list"
    assert reply.json["model"] == "minilm"
    assert reply.json["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    assert all(each["object"] == "embedding" for each in reply.json["data"])


def test_one_text_need_not_be_a_list(call: Call) -> None:
    np.testing.assert_array_equal(vectors(embed(call, TEXTS[0])), vectors(embed(call, TEXTS[:1])))


def test_more_texts_than_a_batch_come_back_in_their_order(call: Call) -> None:
    texts = [f"sentence {'very ' * (n % 7)}long, number {n}" for n in range(37)]
    together = vectors(embed(call, texts))
    for index in (0, 15, 16, 36):
        alone = vectors(embed(call, texts[index]))[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


def test_token_ids_give_openai_s_client_the_vectors_of_their_texts(
    client: openai.OpenAI, server: RunningServer
) -> None:
    # Texts of many lengths, and more of them than the encoder takes at a time.
    texts = [f"{'very ' * (n % 7)}hot, number {n}" for n in range(20)]
    ids = token_ids(server, texts)
    made = client.embeddings.create(model="minilm", input=ids)
    twin = client.embeddings.create(model="minilm", input=texts)
    for ours, theirs in zip(made.data, twin.data, strict=True):
        np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=1e-5)
    assert made.usage == twin.usage
    assert made.usage.prompt_tokens == sum(map(len, ids))


def test_token_ids_are_taken_as_they_are(client: openai.OpenAI, server: RunningServer) -> None:
    (ids,) = token_ids(server, ["Hot."])
    (made,) = client.embeddings.create(model="minilm", input=ids).data
    (bare,) = client.embeddings.create(model="minilm", input=ids[1:-1]).data
    (twin,) = client.embeddings.create(model="minilm", input="Hot.").data
    np.testing.assert_allclose(made.embedding, twin.embedding, atol=1e-5)
    # No mark is put around them that was not sent.
    assert np.abs(np.array(bare.embedding) - np.array(twin.embedding)).max() > 0.01


def test_base64_holds_the_same_numbers(call: Call) -> None:
    plain = vectors(embed(call, TEXTS))
    for row, each in zip(plain, embed(call, TEXTS, encoding_format="base64").json["data"],
                         strict=True):  # fmt: skip
        packed = np.frombuffer(base64.b64decode(each["embedding"]), dtype="<f4")
        np.testing.assert_array_equal(packed, row)


def test_fewer_dimensions_are_the_first_ones_at_unit_length(call: Call) -> None:
    whole, short = vectors(embed(call, TEXTS)), vectors(embed(call, TEXTS, dimensions=64))
    assert short.shape == (3, 64)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)
    directions = whole[:, :64] / np.linalg.norm(whole[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(short, directions, atol=1e-5)


@pytest.mark.rows("O35")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": None}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a"] * 100_000}, "input"),
        ({"input": [1, -2]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [True]}, "input"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": [5, 30_522]}, "input[0]"),
        ({"input": [[5], [2**62]]}, "input[1]"),
        ({"input": [[5], [5] * 257]}, "input[1]"),
        ({"dimensions": -1}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 385}, "dimensions"),
        ({"encoding_format": "x"}, "encoding_format"),
    ],
)
def test_wrong_field_is_refused_by_name(call: Call, fields: dict[str, Any], param: str) -> None:
    reply = call("/v1/embeddings", {"model": "minilm", "input": "a", **fields})
    assert reply.status == 400
    assert reply.json["error"]["type"] == "BadRequestError"
    assert reply.json["error"]["param"].startswith(param)


@pytest.mark.parametrize("name", ["nobody", "add_sub", "minilm_tokenizer"])
def test_model_that_makes_no_embeddings_is_not_found(call: Call, name: str) -> None:
    reply = call("/v1/embeddings", {"model": name, "input": "a"})
    assert reply.status == 404
    assert reply.json["error"]["param"] == "model"
    assert f"`{name}`" in reply.json["error"]["message"]
