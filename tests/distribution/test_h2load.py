"""nghttp2's load generator, an HTTP/2 client that is nobody's gRPC library, over our gRPC port."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_room import good_message, metric
from programs import program
from serving import RunningServer, write_identity

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]
REQUESTS = 20_000


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("models")
    folder = write_identity(repository, "good", dims="4")
    text = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(text.replace("max_batch_size: 8", "max_batch_size: 0"))
    return serve(repository)


def num_inferences(server: RunningServer) -> int:
    (found,) = metric(server, "nv_inference_request_success", model="good")
    return int(found)


def load(server: RunningServer, tmp_path: Path, *flags: str) -> str:
    """What h2load says of REQUESTS inferences."""
    message = good_message("good").SerializeToString()
    (tmp_path / "body").write_bytes(struct.pack(">?I", False, len(message)) + message)
    path = "/inference.GRPCInferenceService/ModelInfer"
    headers = ("content-type: application/grpc", "te: trailers")
    command = [program("h2load"), f"-n{REQUESTS}", f"-d{tmp_path}/body", *flags]
    command += [f"-H{header}" for header in headers] + [f"http://{server.grpc}{path}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "flags",
    [("-c1", "-m1"), ("-c1", "-m100"), ("-c50", "-m10"), ("-c4", "-m20", "-w16", "-W16")],
    ids=" ".join,
)
def test_each_of_many_calls_is_answered(
    server: RunningServer, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    before = num_inferences(server)
    told = load(server, tmp_path, *flags)
    assert f"{REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout" in told, told
    assert num_inferences(server) == before + REQUESTS
