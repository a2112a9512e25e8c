"""The example ensembles with their Python steps in the server: no tensor byte is copied."""

import json
import re
import shutil
import struct
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from example_site import REPOSITORY, TritonClient
from patience import patience
from serving import RunningServer
from text_lines import line

COPIED = re.compile(
    r'trivet_tensor_copied_bytes_total\{kind="(\w+)",model="(\w+)",version="\d+"\} (\d+)'
)
QUESTION = "On which port does the server listen for gRPC?"
PYTHON_STEPS = ("minilm_tokenizer", "decode_png", "pick_passages")
INSIDE = 'parameters { key: "isolation" value { string_value: "none" } }\n'


@pytest.fixture(scope="module")
def inside(
    tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., RunningServer]
) -> RunningServer:
    """The examples, with each Python step's `isolation` set to none."""
    subprocess.run([sys.executable, REPOSITORY / "build.py"], check=True, timeout=patience(600))
    folder = tmp_path_factory.mktemp("inside")
    for model in REPOSITORY.iterdir():
        if model.name in PYTHON_STEPS:
            shutil.copytree(model, folder / model.name)
            with (folder / model.name / "config.pbtxt").open("a") as config:
                config.write(INSIDE)
        elif model.is_dir():
            (folder / model.name).symlink_to(model)
    names = ("sentence_embedding", "text_angle", "rag")
    return serve(
        folder, "--model-control-mode=explicit", *(f"--load-model={name}" for name in names)
    )


@pytest.fixture
def client(inside: RunningServer) -> Iterator[TritonClient]:
    with closing(tritonclient.grpc.InferenceServerClient(inside.grpc)) as made:
        yield TritonClient(tritonclient.grpc, made)


def post(server: RunningServer, model: str, body: dict[str, Any]) -> Any:
    url = f"http://{server.http}/v2/models/{model}/generate"
    with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=patience()) as answer:
        return json.load(answer)


def png(image: np.ndarray) -> bytes:
    """A picture of values -1 to 1, [3, height, width]."""
    pixels = np.rint((image.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_no_tensor_byte_is_copied_in_any_step_of_the_ensembles(
    inside: RunningServer, client: TritonClient
) -> None:
    embedding = client.call("sentence_embedding", {"text": np.array([[b"Hot."]], dtype=object)})
    assert embedding["sentence_embedding"].shape == (1, 384)
    angle = client.call("text_angle", {"png": np.array([png(line("PARTY"))], dtype=object)})
    assert angle["angle"].size == 2
    answer = post(inside, "rag", {"question": QUESTION, "max_tokens": 24, "temperature": 0})
    assert "8001" in answer["text_output"]

    copied = {(model, kind): int(count) for kind, model, count in COPIED.findall(inside.metrics())}

    ensembles = {"sentence_embedding", "text_angle", "rag"}
    steps = {"minilm_tokens", "mean_pooling", "text_direction", *PYTHON_STEPS}
    assert ensembles | steps <= {model for model, _ in copied}
    assert {key: count for key, count in copied.items() if count} == {}
