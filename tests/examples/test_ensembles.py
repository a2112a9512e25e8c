"""The example ensembles on real models: through gRPC, REST and, where they are for text, OpenAI."""

import json
import queue
import struct
import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
import tritonclient.grpc
from example_site import TritonClient
from patience import patience
from serving import RunningServer
from text_lines import LABELS, line, turned
from tritonclient.utils import InferenceServerException

QUESTION = "On which port does the server listen for gRPC?"


def texts(*values: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.array([value.encode() for value in values], dtype=object)
    return array.reshape(shape or (len(values), 1))


# -- sentence_embedding --------------------------------------------------------------------------


def test_the_embedding_is_that_of_its_steps_called_by_hand(triton: TritonClient) -> None:
    sentences = texts("Hot.", "A trivet carries hot dishes.", "三脚架")
    tokens = triton.call("minilm_tokenizer", {"text": sentences})
    by_hand = triton.call("minilm", tokens)["sentence_embedding"]

    answer = triton.call("sentence_embedding", {"text": sentences})

    np.testing.assert_allclose(answer["sentence_embedding"], by_hand, atol=1e-5)
    assert answer["attention_mask"].tolist() == tokens["attention_mask"].tolist()


def test_openai_s_client_gets_embeddings_of_the_ensemble(site: RunningServer) -> None:
    with openai.OpenAI(base_url=f"http://{site.http}/v1", api_key="none") as client:
        made = client.embeddings.create(model="sentence_embedding", input=["Hot.", "A trivet."])
        twin = client.embeddings.create(model="minilm", input=["Hot.", "A trivet."])

    for ours, theirs in zip(made.data, twin.data, strict=True):
        np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=1e-5)
    assert made.usage.prompt_tokens == twin.usage.prompt_tokens > 4


def test_the_ensemble_hands_token_ids_to_the_model_that_it_names(site: RunningServer) -> None:
    with openai.OpenAI(base_url=f"http://{site.http}/v1", api_key="none") as client:
        made = client.embeddings.create(model="sentence_embedding", input=[[101, 2980, 102]])
        twin = client.embeddings.create(model="minilm", input=[101, 2980, 102])

    assert made.data[0].embedding == twin.data[0].embedding
    assert made.model == "sentence_embedding"


def test_nothing_is_copied_between_encoder_and_answer(
    triton: TritonClient, site: RunningServer
) -> None:
    triton.call("sentence_embedding", {"text": texts("Hot.")})

    wanted = 'trivet_tensor_copied_bytes_total{kind="%s",model="sentence_embedding",version="1"} 0'

    metrics = site.metrics()
    assert all(wanted % kind in metrics for kind in ("host", "gather", "scatter"))


# -- text_angle ----------------------------------------------------------------------------------


def png(image: np.ndarray, kind: int) -> bytes:
    """A picture of values -1 to 1, [3, height, width], with one filter for all rows."""
    pixels = np.rint((image.transpose(1, 2, 0) + 1) * 127.5).astype(np.int64)
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, width * 3)
    left = np.pad(rows, ((0, 0), (3, 0)))[:, : width * 3]
    up = np.pad(rows, ((1, 0), (0, 0)))[:height]
    corner = np.pad(rows, ((1, 0), (3, 0)))[:height, : width * 3]
    guesses = [np.zeros_like(rows), left, up, (left + up) // 2, paeth(left, up, corner)]
    filtered = ((rows - guesses[kind]) % 256).astype(np.uint8)
    raw = b"".join(bytes([kind]) + row.tobytes() for row in filtered)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    estimate = left + up - corner
    near = np.stack([abs(estimate - each) for each in (left, up, corner)])
    chosen: np.ndarray = np.choose(near.argmin(0), [left, up, corner])
    return chosen


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("kind", range(5))
def test_a_picture_is_decoded_classified_and_labelled(triton: TritonClient, kind: int) -> None:
    best = triton.module.InferRequestedOutput("angle", class_count=1)
    found = []
    for image in (line("PARTY"), turned(line("PARTY"))):
        given = np.array([png(image, kind)], dtype=object)
        answer = triton.infer("text_angle", {"png": given}, [best]).as_numpy("angle")
        found.append(answer.ravel()[0].decode().split(":")[2])

    assert found == LABELS


def test_what_is_no_picture_is_refused_with_the_ensemble_s_name(triton: TritonClient) -> None:
    with pytest.raises(InferenceServerException, match=r"in ensemble 'text_angle'.*not a PNG"):
        triton.call("text_angle", {"png": np.array([b"GIF89a"], dtype=object)})


# -- rag -----------------------------------------------------------------------------------------


def post(site: RunningServer, path: str, body: dict[str, Any]) -> str:
    url = f"http://{site.http}{path}"
    with urllib.request.urlopen(url, data=json.dumps(body).encode(), timeout=patience()) as answer:
        text: str = answer.read().decode()
    return text


def test_the_answer_to_a_question_streams_through_grpc(site: RunningServer) -> None:
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    question = tritonclient.grpc.InferInput("question", [1], "BYTES")
    question.set_data_from_numpy(texts(QUESTION, shape=(1,)))
    stream = tritonclient.grpc.InferInput("stream", [1], "BOOL")
    stream.set_data_from_numpy(np.array([True]))

    with tritonclient.grpc.InferenceServerClient(site.grpc) as client:
        client.start_stream(lambda result, error: arrived.put(error or result))
        client.async_stream_infer(
            "rag",
            [question, stream],
            parameters={"max_tokens": 24, "temperature": 0},
            enable_empty_final_response=True,
        )
        answers = []
        while True:
            answer = arrived.get(timeout=patience())
            assert not isinstance(answer, Exception), answer
            if answer.get_response().parameters["triton_final_response"].bool_param:
                break
            answers.append(answer)

    assert len(answers) > 3
    assert "8001" in "".join(each.as_numpy("text_output").ravel()[0].decode() for each in answers)
    assert {each.as_numpy("passage").ravel()[0].decode()[:40] for each in answers} == {
        "The server listens for HTTP on port 8000"
    }


def test_the_answer_streams_through_rest(site: RunningServer) -> None:
    body = {"question": QUESTION, "stream": True, "max_tokens": 24, "temperature": 0}

    events = post(site, "/v2/models/rag/generate_stream", body)

    chunks = [json.loads(event[6:]) for event in events.split("\n\n") if event.startswith("data: ")]
    assert len(chunks) > 3
    assert "8001" in "".join(each["text_output"] for each in chunks)


def test_the_answer_comes_whole_through_rest(site: RunningServer) -> None:
    answer = json.loads(
        post(
            site,
            "/v2/models/rag/generate",
            {"question": "What is a trivet?", "max_tokens": 8, "temperature": 0},
        )
    )

    assert answer["passage"].startswith("A trivet is a three-legged stand")
    assert answer["text_output"]


@pytest.fixture
def chat(site: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{site.http}/v1", api_key="none", max_retries=0) as client:
        yield client


ASKED: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": QUESTION},
]


def test_openai_s_client_chats_with_the_ensemble(chat: openai.OpenAI) -> None:
    answer = chat.chat.completions.create(
        model="rag", messages=ASKED, max_tokens=24, temperature=0, logprobs=True
    )

    (choice,) = answer.choices
    assert "8001" in (choice.message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 30  # the passage is in the prompt
    assert choice.logprobs is not None
    assert len(choice.logprobs.content or ()) == answer.usage.completion_tokens


def test_openai_s_client_streams_the_ensemble_s_answer(chat: openai.OpenAI) -> None:
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in chat.chat.completions.create(
            model="rag", messages=ASKED, max_tokens=24, temperature=0, stream=True
        )
    ]
    assert len(pieces) > 3
    assert "8001" in "".join(pieces)


def test_a_plain_completion_goes_through_the_steps_too(
    chat: openai.OpenAI, site: RunningServer
) -> None:
    made = chat.completions.create(model="rag", prompt=QUESTION, max_tokens=24, temperature=0)
    assert "8001" in made.choices[0].text
    body = {"inputs": QUESTION, "model": "rag", "parameters": {"max_new_tokens": 24}}
    assert "8001" in json.loads(post(site, "/generate", body))["generated_text"]


def test_the_ensemble_is_listed_with_its_language_model(chat: openai.OpenAI) -> None:
    assert {"rag", "smollm2"} <= {model.id for model in chat.models.list()}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
            "tools: ensemble 'rag' writes the prompt itself",
        ),
        ({"messages": [*ASKED, {"role": "assistant", "content": "x"}]}, "must be the user's"),
    ],
    ids=["tools", "no question"],
)
def test_what_the_steps_cannot_take_is_refused(
    chat: openai.OpenAI, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=part):
        chat.chat.completions.create(**{"model": "rag", "messages": ASKED, **changes})
