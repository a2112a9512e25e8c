"""Image classifiers: as models of Triton's protocol, and as Hugging Face's clients ask them."""

import base64
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from huggingface_hub import InferenceClient
from image_folders import LABELS, encoded, picture, predictions
from llm_site import Call
from serving import RunningServer
from tritonclient.utils import InferenceServerException

FILE = encoded(picture(60, 45, 2), "JPEG")
KIND = "Content-Type"


@pytest.fixture(scope="module")
def expected(repository: Path) -> dict[str, float]:
    (found,) = predictions(repository / "pictures/1", [FILE])
    return found


def images_input(module: object, *files: bytes) -> object:
    values = np.array([[each] for each in files], dtype=object)
    made = module.InferInput("image", list(values.shape), "BYTES")  # type: ignore[attr-defined] # either module
    made.set_data_from_numpy(values)
    return made


def test_a_file_goes_in_and_scores_and_a_label_come_out(
    encoders: RunningServer, expected: dict[str, float]
) -> None:
    for module, url in ((httpclient, encoders.http), (grpcclient, encoders.grpc)):
        with module.InferenceServerClient(url) as client:
            result = client.infer("pictures", [images_input(module, encoded(picture()), FILE)])
            scores, label = result.as_numpy("scores"), result.as_numpy("label")
            assert result.as_numpy("logits") is None
        assert scores.shape == (2, 3)
        np.testing.assert_allclose(scores[1], [expected[each] for each in LABELS], rtol=3e-5)
        assert label[1].tolist() == [max(expected, key=expected.__getitem__).encode()]


def test_a_wrong_file_is_a_wrong_request(encoders: RunningServer) -> None:
    with httpclient.InferenceServerClient(encoders.http) as client:
        with pytest.raises(InferenceServerException, match=r"image\[1\]: .*Truncated") as caught:
            client.infer("pictures", [images_input(httpclient, FILE, FILE[: len(FILE) // 2])])
        assert caught.value.status() == "400"
        assert client.is_server_ready()


def test_hugging_face_s_client_sends_files_and_gets_labels(
    encoders: RunningServer, expected: dict[str, float], tmp_path: Path
) -> None:
    client = InferenceClient(model=f"http://{encoders.http}")
    path = tmp_path / "photo.jpg"
    path.write_bytes(FILE)

    for given in (FILE, path, str(path)):
        found = client.image_classification(given)
        assert {each.label: each.score for each in found} == pytest.approx(expected, rel=3e-5)

    # With parameters it is a JSON document, which might be of texts.
    client = InferenceClient(model=f"http://{encoders.http}", headers={"model": "pictures"})
    best = client.image_classification(FILE, top_k=1)
    assert [each.label for each in best] == [max(expected, key=expected.__getitem__)]


def test_parameters_and_several_images_come_in_json(
    call: Call, repository: Path, encoders: RunningServer
) -> None:
    text = base64.b64encode(FILE).decode()
    body = {
        "model": "pictures",
        "inputs": [text, f"data:image/jpeg;base64,{text}"],
        "parameters": {"function_to_apply": "sigmoid", "top_k": 2},
    }
    (expected,) = predictions(repository / "pictures/1", [FILE], function_to_apply="sigmoid")

    reply = call("/", body)

    best = sorted(expected.items(), key=lambda each: -each[1])[:2]
    for found in reply.json:
        assert [each["label"] for each in found] == [label for label, _ in best]
        assert [each["score"] for each in found] == pytest.approx([s for _, s in best], rel=3e-5)


@pytest.mark.parametrize(
    ("body", "kind", "status", "text"),
    [
        (b"no image", "image/png", 400, "image[0]: 8 bytes that are no image file of a kind"),
        (FILE[:300], "application/octet-stream", 400, "image[0]: the file cannot be decoded"),
        (b"", "image/png", 400, "image[0]: it is empty"),
        ({"model": "pictures", "inputs": "no base64!"}, "application/json", 400, "base64"),
        ({"model": "pictures", "inputs": []}, "application/json", 400, "cannot be empty"),
        ({"model": "pictures", "inputs": [""] * 65}, "application/json", 413, "65 images; 64 may"),
        ({"model": "pictures"}, "application/json", 422, "inputs"),
        (FILE, "text/plain", 415, "'text/plain' is not supported"),
    ],
)
def test_what_is_wrong_is_said(call: Call, body: object, kind: str, status: int, text: str) -> None:
    reply = call("/", body, **{KIND: kind})

    assert reply.status == status
    assert text in reply.json["error"]


def test_texts_go_on_to_those_who_read_them(call: Call) -> None:
    assert call("/", {"inputs": "good"}, model="labels").status == 200
    reply = call("/", FILE, **{KIND: "image/jpeg", "model": "labels"})
    assert (reply.status, reply.json["error"]) == (413, "model: `labels` labels no images")
