"""Headers that models see, headers that APIs ask for, and compressed answers, with tritonclient."""

import gzip
import json
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from patience import patience
from serving import RunningServer, write_identity
from tritonclient.utils import InferenceServerException

PARAMETERS = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        texts = (np.array([r.parameters()], dtype=object) for r in requests)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)]) for text in texts]
"""
CONFIG = """
backend: "python"
input [{ name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "OUT" data_type: TYPE_STRING dims: [ 1 ] }]
parameters { key: "isolation" value { string_value: "none" } }
"""
MODULES = {"http": httpclient, "grpc": grpcclient}


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    write_identity(repository, "identity", dims="-1")
    (repository / "parameters" / "1").mkdir(parents=True)
    (repository / "parameters" / "1" / "model.py").write_text(PARAMETERS)
    (repository / "parameters" / "config.pbtxt").write_text(CONFIG)
    return serve(
        repository,
        "--http-header-forward-pattern=(X-Team|x-.*-level|authorization|priority)",
        "--grpc-header-forward-pattern=(?-i)(x-team|X-Other)",
        "--http-restricted-api=model-repository,trace:Admin-Key=sesame",
        "--http-restricted-api=logging:Log-Key=open",
        "--grpc-restricted-protocol=model-repository,trace:admin-key=sesame",
    )


def client(server: RunningServer, protocol: str) -> Any:
    address = server.http if protocol == "http" else server.grpc
    return closing(MODULES[protocol].InferenceServerClient(address))


# -- forwarded headers ---------------------------------------------------------------------------


def seen(server: RunningServer, protocol: str, headers: dict[str, str], **more: Any) -> Any:
    """The parameters that the model sees."""
    tensor = MODULES[protocol].InferInput("IN", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with client(server, protocol) as asking:
        answer = asking.infer("parameters", [tensor], headers=headers, **more)
        return json.loads(answer.as_numpy("OUT").item())


@pytest.mark.parametrize("protocol", MODULES)
def test_matching_headers_reach_the_model_as_parameters(
    server: RunningServer, protocol: str
) -> None:
    assert seen(server, protocol, {"x-team": "red", "x-teams": "no", "x-other": "no"}) == {
        "x-team": "red"
    }


def test_names_match_in_any_case_and_keep_theirs(server: RunningServer) -> None:
    given = {"X-TEAM": "red", "X-Log-Level": "3", "Y-Log-Level": "4"}
    assert seen(server, "http", given) == {"X-TEAM": "red", "X-Log-Level": "3"}


@pytest.mark.parametrize("protocol", MODULES)
def test_a_parameter_of_the_client_cannot_pose_as_a_header(
    server: RunningServer, protocol: str
) -> None:
    forged = {"x-team": "blue", "mine": 1}
    assert seen(server, protocol, {"x-team": "red"}, parameters=forged) == {
        "x-team": "red",
        "mine": 1,
    }


def test_keys_are_never_forwarded(server: RunningServer) -> None:
    assert seen(server, "http", {"Authorization": "Bearer secret"}) == {}


def test_a_header_with_the_name_of_a_parameter_that_has_a_meaning_is_refused(
    server: RunningServer,
) -> None:
    with pytest.raises(InferenceServerException, match=r"header '[Pp]riority' cannot be forwarded"):
        seen(server, "http", {"priority": "1"})


def test_streams_and_generate_forward_too(server: RunningServer) -> None:
    answers: list[Any] = []
    tensor = grpcclient.InferInput("IN", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with grpcclient.InferenceServerClient(server.grpc) as asking:
        asking.start_stream(
            lambda result, error: answers.append(error or result), headers={"x-team": "red"}
        )
        asking.async_stream_infer("parameters", [tensor])
        asking.stop_stream()
    assert [json.loads(each.as_numpy("OUT").item()) for each in answers] == [{"x-team": "red"}]

    url = f"http://{server.http}/v2/models/parameters/generate"
    request = urllib.request.Request(url, b'{"IN": 0}', {"x-team": "red"})
    with urllib.request.urlopen(request, timeout=patience()) as answer:
        assert json.loads(json.load(answer)["OUT"]) == {"X-Team": "red"}


# -- restricted APIs -----------------------------------------------------------------------------


def test_a_restricted_api_wants_its_header_over_http(server: RunningServer) -> None:
    with client(server, "http") as asking:
        for headers in ({}, {"Admin-Key": "please"}, {"Log-Key": "open"}):
            with pytest.raises(InferenceServerException, match="expecting header 'admin-key'"):
                asking.get_model_repository_index(headers=headers)
        assert asking.get_model_repository_index(headers={"admin-key": "sesame"})
        assert asking.get_trace_settings(headers={"Admin-Key": "sesame"})
        assert asking.is_server_ready()
        assert asking.get_server_metadata()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.http}/v2/logging", timeout=patience())
    with caught.value as refusal:
        assert refusal.code == 403


def test_a_restricted_protocol_wants_its_metadata_over_grpc(server: RunningServer) -> None:
    with client(server, "grpc") as asking:
        for headers in ({}, {"admin-key": "sesame"}):
            with pytest.raises(InferenceServerException, match="This protocol is restricted") as e:
                asking.get_model_repository_index(headers=headers)
            assert e.value.status() == "StatusCode.UNAVAILABLE"
        allowed = {"triton-grpc-protocol-admin-key": "sesame"}
        assert asking.get_model_repository_index(headers=allowed).models
        assert asking.get_log_settings()
        assert asking.is_server_live()


# -- compressed answers --------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_an_answer_is_compressed_as_the_client_asks(
    server: RunningServer, coding: str, is_binary: bool
) -> None:
    values = np.arange(40_000, dtype=np.float32).reshape(1, -1) // 1000
    tensor = httpclient.InferInput("INPUT0", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    output = httpclient.InferRequestedOutput("OUTPUT0", binary_data=is_binary)
    sizes = []
    with client(server, "http") as asking:
        post = asking._post

        def counted(**given: Any) -> Any:
            answer = post(**given)
            sizes.append((answer.get("content-encoding"), int(answer.get("content-length"))))
            return answer

        asking._post = counted
        answer = asking.infer(
            "identity", [tensor], outputs=[output], response_compression_algorithm=coding
        )
    assert answer.as_numpy("OUTPUT0").tolist() == values.tolist()
    assert [each for each, _ in sizes] == [coding]
    assert sizes[0][1] < 10_000


def raw_answer(server: RunningServer, values: np.ndarray, accepts: str) -> tuple[str, bytes]:
    """Content-Encoding and body of a binary answer."""
    tensor = httpclient.InferInput("INPUT0", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values)
    body, length = httpclient.InferenceServerClient.generate_request_body([tensor])
    headers = {"Accept-Encoding": accepts, "Inference-Header-Content-Length": str(length)}
    url = f"http://{server.http}/v2/models/identity/infer"
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=patience()) as answer:
        return answer.headers.get("Content-Encoding", ""), answer.read()


def test_weights_choose_and_what_does_not_shrink_is_sent_as_it_is(server: RunningServer) -> None:
    zeros = np.zeros((1, 100_000), np.float32)
    coding, packed = raw_answer(server, zeros, "gzip;q=0.2, deflate;q=0.8, br")
    assert coding == "deflate"
    assert zlib.decompress(packed).endswith(zeros.tobytes())
    coding, packed = raw_answer(server, zeros, "*;q=0.1")
    assert coding == "gzip"
    assert gzip.decompress(packed).endswith(zeros.tobytes())
    random = np.random.default_rng(1).random((1, 100_000), np.float32)
    for values, accepts in ((random, "gzip"), (zeros, "gzip;q=0"), (zeros[:, :4], "gzip")):
        coding, body = raw_answer(server, values, accepts)
        assert coding == ""
        assert body.endswith(values.tobytes())


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--http-header-forward-pattern=(", "--http-header-forward-pattern: '(' is no regular"),
        ("--http-restricted-api=everything:a=b", "unknown API 'everything'; known are health"),
        ("--grpc-restricted-protocol=trace:abc", "is API,API:HEADER=VALUE"),
    ],
)
def test_a_wrong_option_ends_the_start_with_its_text(
    serve: Callable[..., RunningServer], tmp_path: Path, flag: str, text: str
) -> None:
    server = serve(tmp_path, flag, wait=False)
    assert server.process.wait(patience()) == 1
    ends_s = time.monotonic() + patience()
    while not any(text in line for line in server.output):
        assert time.monotonic() < ends_s, "".join(server.output)
        time.sleep(0.01)
