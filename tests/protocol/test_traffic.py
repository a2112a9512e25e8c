"""Labels and splits between versions, as clients of each protocol meet them."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from google.protobuf.message import Message
from patience import patience
from sequence_models import write_accumulator
from serving import RunningServer, write_adder
from tritonclient.utils import InferenceServerException

from trivet.protos import grpc_service_pb2 as pb
from trivet.protos import releases_pb2 as releases

Serve = Callable[..., RunningServer]
HALVES = """
sticky = ["header:x-user", "cookie:session"]
[labels]
stable = 1
canary = 2
[split]
stable = 50
canary = 50
"""
WHOLE = """
platform: "ensemble"
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
ensemble_scheduling { step {
  model_name: "adder@canary" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        write_adder(folder, "adder", version)
    share_out(folder, "adder", HALVES)
    return folder


def share_out(repository: Path, name: str, text: str) -> None:
    """At once, as a careful operator does it."""
    made = repository / name / "traffic.toml.tmp"
    made.write_text(text)
    made.rename(repository / name / "traffic.toml")


@pytest.fixture(scope="module")
def server(serve: Serve, repository: Path) -> Iterator[RunningServer]:
    running = serve(repository, f"--state-dir={repository.parent}")
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, path: str = "adder", **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    document: dict[str, Any] = {
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]
    }
    if request_id := given.pop("request-id", ""):
        document["id"] = request_id
    url = f"http://{server.http}/v2/models/{path}/infer"
    return httpx.post(url, json=document, headers=given, timeout=patience())


def version_of(answer: httpx.Response) -> int:
    """Which one computed: each adds its own number."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["outputs"][0]["data"] == [float(document["model_version"])]
    assert answer.headers["x-trivet-version"] == document["model_version"]
    return int(document["model_version"])


def add(client: Any, name: str = "adder", **options: Any) -> int:
    given = grpcclient.InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    return int(client.infer(name, [given], **options).as_numpy("y")[0])


def test_versions_that_get_requests_serve_and_the_newest_as_the_policy_says(
    server: RunningServer,
) -> None:
    assert [ask(server, f"adder/versions/{n}").status_code for n in (1, 2, 3)] == [200] * 3


def test_requests_without_a_key_are_shared_out_evenly(server: RunningServer) -> None:
    answers = [ask(server) for _ in range(20)]

    assert Counter(map(version_of, answers)) == {1: 10, 2: 10}
    assert {each.headers["x-trivet-route"] for each in answers} == {"split:stable", "split:canary"}


@pytest.mark.parametrize("source", ["x_user", "cookie"])
def test_who_is_known_stays_with_a_version(server: RunningServer, source: str) -> None:
    def asked(user: int) -> list[int]:
        given = f"a=b; session=u{user}" if source == "cookie" else f"u{user}"
        return [version_of(ask(server, **{source: given})) for _ in range(2)]

    versions = [asked(user) for user in range(16)]

    assert all(first == second for first, second in versions)
    assert {first for first, _ in versions} == {1, 2}


def test_over_grpc_metadata_is_what_headers_are(server: RunningServer) -> None:
    over_http = [version_of(ask(server, x_user=f"u{user}")) for user in range(8)]
    with grpcclient.InferenceServerClient(server.grpc) as client:
        over_grpc = [add(client, headers={"x-user": f"u{user}"}) for user in range(8)]
        named = add(client, headers={"x-model-version": "canary"})

    assert over_grpc == over_http
    assert named == 2


def test_over_grpc_what_was_chosen_stands_behind_the_answer(server: RunningServer) -> None:
    request = pb.ModelInferRequest(model_name="adder", model_version="canary")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(0.0)
    with grpc.insecure_channel(server.grpc) as channel:
        ask_one = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        answer, call = ask_one.with_call(request, timeout=patience())

    told = dict(call.trailing_metadata())
    assert answer.model_version == "2"
    assert told == {"x-trivet-version": "2", "x-trivet-route": "label:canary"}


@pytest.mark.parametrize("way", ["path", "header", "name"])
def test_a_label_is_taken_where_a_version_is(server: RunningServer, way: str) -> None:
    path = {"path": "adder/versions/canary", "header": "adder", "name": "adder@canary"}[way]
    headers = {"x_model_version": "canary"} if way == "header" else {}
    answer = ask(server, path, **headers)

    assert version_of(answer) == 2
    assert answer.headers["x-trivet-route"] == "label:canary"


def test_tritons_clients_take_labels(server: RunningServer) -> None:
    given = httpclient.InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    with httpclient.InferenceServerClient(server.http) as http:
        asked = http.infer("adder", [given], model_version="canary")
        described = http.get_model_metadata("adder", "canary")
        assert http.is_model_ready("adder", "canary")
    with grpcclient.InferenceServerClient(server.grpc) as over_grpc:
        assert add(over_grpc, model_version="stable") == 1
        assert add(over_grpc, "adder@canary") == 2
        assert over_grpc.get_model_metadata("adder", "canary").versions == ["2"]
        statistics = over_grpc.get_inference_statistics("adder", "canary").model_stats

    assert int(asked.as_numpy("y")[0]) == 2
    assert described["versions"] == ["2"]
    assert [each.version for each in statistics] == ["2"]


def test_a_step_of_an_ensemble_may_be_a_label(serve: Serve, tmp_path: Path) -> None:
    for version in (1, 2):
        write_adder(tmp_path, "adder", version)
    share_out(tmp_path, "adder", "[labels]\ncanary = 1")
    (tmp_path / "whole" / "1").mkdir(parents=True)
    (tmp_path / "whole" / "config.pbtxt").write_text(WHOLE)
    server = serve(tmp_path, "--model-control-mode=explicit", "--load-model=whole")

    def computed() -> float:
        return float(ask(server, "whole").json()["outputs"][0]["data"][0])

    assert {name for name, _ in server.index()} == {"adder", "whole"}
    assert computed() == 1
    share_out(tmp_path, "adder", "[labels]\ncanary = 2")
    httpx.post(f"http://{server.http}/v2/repository/models/adder/load", timeout=patience())
    server.wait_until(lambda: computed() == 2, "asked the version that is called so now")


def test_what_is_not_a_label_is_named(server: RunningServer) -> None:
    answer = ask(server, "adder/versions/canari")

    assert answer.status_code == 404
    assert answer.json()["error"].endswith("did you mean 'canary'?")
    assert ask(server, "adder@canari").status_code == 404
    assert ask(server, x_model_version="0").status_code == 400


def test_another_split_takes_effect_without_a_load_and_a_wrong_one_has_none(
    serve: Serve, tmp_path: Path
) -> None:
    for version in (1, 2):
        write_adder(tmp_path, "adder", version)
    share_out(tmp_path, "adder", "[split]\n1 = 100\n2 = 0")
    server = serve(tmp_path)

    def versions(count: int = 4) -> set[int]:
        return {version_of(ask(server)) for _ in range(count)}

    assert versions() == {1}
    share_out(tmp_path, "adder", "[split]\n1 = 0\n2 = 100")
    server.wait_until(lambda: versions() == {2}, "gave all to version 2")
    share_out(tmp_path, "adder", "[split]\n1 = 60\n2 = 60")
    server.wait_until(lambda: "sum to 120; make them 100" in str(server.index()), "refused it")
    assert versions() == {2}
    (tmp_path / "adder" / "traffic.toml").unlink()
    server.wait_until(lambda: ask(server).headers.get("x-trivet-version") is None, "forgot it")
    assert [sum(f"version {n} is ready" in line for line in server.output) for n in (1, 2)] == [
        1,
        1,
    ]


def test_shares_are_set_from_outside_and_feedback_reaches_their_arms(
    server: RunningServer,
) -> None:
    url = f"http://{server.http}/v2/models/adder/traffic"
    given = {"labels": {"old": 1, "new": 3}, "split": {"old": 50, "new": 50}}
    assert httpx.put(url, json=given, timeout=patience()).json()["labels"] == given["labels"]
    try:
        answers = [ask(server, request_id=f"r{number}") for number in range(8)]
        # By their ids, which are the same each time.
        assert Counter(map(version_of, answers)) == {1: 5, 3: 3}
        told = [report(server, f"r{number}", 1.0).status_code for number in range(8)]
        assert told == [200] * 8
        assert report(server, "r8", 1.0).status_code == 404
        arms = httpx.get(url, timeout=patience()).json()["arms"]
        assert {name: arm["outcomes"]["liked"]["count"] for name, arm in arms.items()} == {
            "old": 5,
            "new": 3,
        }
        assert (
            'trivet_arm_requests_total{arm="new",model="adder",version="3"} 3' in server.metrics()
        )
        assert ask(server, "adder@canary").status_code == 404
    finally:
        assert httpx.delete(url, timeout=patience()).json()["labels"] == {"stable": 1, "canary": 2}
    # What no label named meanwhile may have been unloaded, and is loaded again.
    server.wait_until(lambda: ask(server, "adder@canary").status_code == 200, "back")
    assert version_of(ask(server, "adder@canary")) == 2


def test_a_shadow_is_asked_beside_and_told_to_nobody(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for version in (1, 2):
        write_adder(tmp_path / "models", "adder", version)
    share_out(tmp_path / "models", "adder", "[split]\n1 = 100\n[shadow]\nversion = 2")
    server = serve(tmp_path / "models", f"--state-dir={tmp_path}")
    url = f"http://{server.http}/v2/models/adder/traffic"

    assert [version_of(ask(server, request_id=f"r{number}")) for number in range(3)] == [1, 1, 1]
    told = 'trivet_shadow_requests_total{model="adder",verdict="different",version="2"} 3'
    server.wait_until(lambda: told in server.metrics(), "compared")
    found = httpx.get(f"{url}/differences", timeout=patience()).json()
    assert [each["request"] for each in found] == ["r0", "r1", "r2"]
    assert found[0]["differences"] == ["y: 1 of 1 numbers differ, by up to 1"]
    counted = httpx.get(url, timeout=patience()).json()["shadows"]
    assert counted == {"2": {"same": 0, "different": 3, "failed": 0, "shed": 0}}
    assert server.stop() == 0


def report(server: RunningServer, request_id: str, value: float) -> httpx.Response:
    document = {"request_id": request_id, "name": "liked", "value": value}
    return httpx.post(f"http://{server.http}/v2/feedback", json=document, timeout=patience())


def test_the_same_over_grpc(server: RunningServer) -> None:
    def call(name: str, request: Message, answer: type[Message]) -> Any:
        ask_one = channel.unary_unary(
            f"/trivet.Releases/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return ask_one(request, timeout=patience())

    state = releases.TrafficInForce
    with grpc.insecure_channel(server.grpc) as channel:
        share = releases.Share(arm="only", percent=100)
        request = releases.SetTrafficRequest(model="adder", labels={"only": 2}, split=[share])
        assert dict(call("SetTraffic", request, state).labels) == {"only": 2}
        assert version_of(ask(server)) == 2
        reset = call("ResetTraffic", releases.TrafficRequest(model="adder"), state)
        assert dict(reset.labels) == {"stable": 1, "canary": 2}
        one = releases.RolloutRequest(model="adder")
        assert call("Rollout", one, releases.RolloutState).phase == ""
        history = call("RolloutHistory", one, releases.RolloutHistoryResponse).records
        assert {each.event for each in history} == {"traffic"}
        change = releases.ChangeRolloutRequest(model="adder", command="start")
        with pytest.raises(grpc.RpcError, match="the requests of model 'adder' are split"):
            call("ChangeRollout", change, releases.RolloutState)
        feedback = releases.FeedbackRequest(request_id="none", name="liked", value=1)
        with pytest.raises(grpc.RpcError, match="request 'none' is not known here"):
            call("Feedback", feedback, releases.FeedbackResponse)
        assert call("Rollouts", releases.RolloutsRequest(), releases.RolloutsResponse) is not None


def test_a_sequence_stays_where_it_began(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_accumulator(folder, "sums")
    (folder / "sums" / "1").rename(folder / "sums" / "7")
    (folder / "sums" / "8").mkdir()
    for file in (folder / "sums" / "7").iterdir():
        (folder / "sums" / "8" / file.name).write_bytes(file.read_bytes())
    share_out(folder, "sums", "[split]\n7 = 100\n8 = 0")
    server = serve(folder)

    def step(sequence: int, *, start: bool = False, end: bool = False) -> int:
        given = grpcclient.InferInput("INPUT", [1, 1], "INT32")
        given.set_data_from_numpy(np.ones((1, 1), np.int32))
        result = client.infer(
            "sums", [given], sequence_id=sequence, sequence_start=start, sequence_end=end
        )
        return int(result.get_response().model_version)

    with grpcclient.InferenceServerClient(server.grpc) as client:
        assert step(5, start=True) == 7
        share_out(folder, "sums", "[split]\n7 = 0\n8 = 100")
        fresh = iter(range(100, 10_000))
        server.wait_until(
            lambda: step(next(fresh), start=True, end=True) == 8, "moved new sequences"
        )
        assert [step(5), step(5, end=True), step(5, start=True, end=True)] == [7, 7, 8]


def test_a_key_of_an_allowed_model_reaches_its_labels_only(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for version in (1, 2):
        write_adder(folder, "adder", version)
    write_adder(folder, "adder@other", 1)
    share_out(folder, "adder", "[labels]\ncanary = 2\nother = 1")
    keys = tmp_path / "keys.toml"
    command = [sys.executable, "-m", "trivet", "keys", f"--file={keys}", "create", "team"]
    made = subprocess.run(
        [*command, "--scope=infer", "--model=adder"], check=True, capture_output=True
    )
    bearer = f"Bearer {made.stdout.decode().split()[-1]}"
    server = serve(folder, f"--auth-keys-file={keys}")

    def status(path: str) -> int:
        return ask(server, path, authorization=bearer).status_code

    assert [status(each) for each in ("adder", "adder@canary", "adder/versions/other")] == [200] * 3
    assert status("adder@other") == 403, "that is another model"


def test_clients_see_refusals_of_tritons_kind_where_there_are_no_labels(
    serve: Serve, tmp_path: Path
) -> None:
    write_adder(tmp_path, "adder", 1)
    server = serve(tmp_path)
    with (
        httpclient.InferenceServerClient(server.http) as client,
        pytest.raises(InferenceServerException, match="failed to get model version from specified"),
    ):
        client.get_model_metadata("adder", "latest")
