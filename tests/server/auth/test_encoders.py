"""Keys and encoders: the tokens that are read are counted and limited, whichever way they come."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from auth_site import Keys
from encoder_folders import make_encoder
from llm_site import caller
from serving import RunningServer, start_server
from tritonclient.utils import InferenceServerException

TEXT = "a trivet carries hot dishes"
NUM_TOKENS = 7
LIMIT = 10
COMPOSED = """
platform: "ensemble"
max_batch_size: 8
input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "embedding" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "attention_mask" data_type: TYPE_INT32 dims: [ 1 ] }
ensemble_scheduling { step {
  model_name: "vectors"
  input_map { key: "text" value: "text" }
  output_map { key: "embedding" value: "embedding" }
  output_map { key: "num_tokens" value: "attention_mask" }
} }
"""
"""Tells how many tokens it read, which its step has charged."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    made = Keys(tmp_path_factory.mktemp("keys") / "keys.toml")
    for name in ("openai", "composed", "tei", "many", "tensors", "ids"):
        made.add(name, "infer", more=f"tokens_per_minute = {LIMIT}")
    return made


@pytest.fixture(scope="module")
def server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("models")
    make_encoder(repository / "vectors/1")
    (repository / "composed/1").mkdir(parents=True)
    (repository / "composed/config.pbtxt").write_text(COMPOSED)
    opened = start_server(repository, f"--auth-keys-file={keys.path}")
    yield opened
    assert opened.stop() == 0
    opened.end()


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("openai", "/v1/embeddings", {"model": "vectors", "input": TEXT}),
        ("composed", "/v1/embeddings", {"model": "composed", "input": TEXT}),
        ("tei", "/embed", {"inputs": TEXT}),
    ],
)
def test_http_routes_count(
    server: RunningServer, keys: Keys, name: str, path: str, body: dict[str, str]
) -> None:
    call, header = caller(server), keys.header(name)
    replies = [call(path, body, **header) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    told = [reply.headers["x-ratelimit-remaining-tokens"] for reply in replies]
    assert told == [str(LIMIT - NUM_TOKENS), "0", "0"]
    assert f"{LIMIT} tokens per minute" in str(replies[2].json["error"])


def test_a_request_that_is_let_in_is_answered_whole(server: RunningServer, keys: Keys) -> None:
    """Its texts go to the model in several requests."""
    call, header = caller(server), keys.header("many")
    texts = {"inputs": [TEXT] * 300}
    assert len(call("/embed", texts, **header).json) == 300
    assert call("/embed", texts, **header).status == 429


@pytest.mark.parametrize("name", ["tensors", "ids"])
def test_tensors_count(server: RunningServer, keys: Keys, name: str) -> None:
    if name == "ids":
        given = grpcclient.InferInput("input_ids", [1, NUM_TOKENS], "INT64")
        given.set_data_from_numpy(np.ones((1, NUM_TOKENS), np.int64))
    else:
        given = grpcclient.InferInput("text", [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[TEXT.encode()]], dtype=object))
    header = {"authorization": f"Bearer {keys.secrets[name]}"}
    with grpcclient.InferenceServerClient(server.grpc) as client:
        for _ in range(2):
            client.infer("vectors", [given], headers=header)
        with pytest.raises(InferenceServerException, match=f"{LIMIT} tokens per minute"):
            client.infer("vectors", [given], headers=header)
