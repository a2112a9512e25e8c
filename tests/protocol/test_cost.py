"""A server with prices: what clients, operators and keys with a budget see of them."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from patience import patience
from serving import RunningServer, start_server, write_identity

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.auth.keys import digest_of, new_secret
from trivet.server.cli import main

KEY = '[[keys]]\nname = "{name}"\nhash = "sha256:{hash}"\nscopes = ["infer", "metrics"]\n'
BODY = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 16], "data": [1.0] * 16}]}


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    return {name: new_secret() for name in ("rich", "poor")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    write_identity(folder / "models", "m")
    (folder / "prices.toml").write_text("machine_hour = 3600000")
    tables = [KEY.format(name=n, hash=digest_of(s).hex()) for n, s in secrets.items()]
    (folder / "keys.toml").write_text("".join(tables) + "cost_per_day = 1e-9\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    flags = (f"--prices={folder}/prices.toml", f"--auth-keys-file={folder}/keys.toml")
    server = start_server(folder / "models", *flags, f"--state-dir={folder}/state")
    yield server
    server.end()


@pytest.fixture
def ask(server: RunningServer, secrets: dict[str, str]) -> Callable[[str], tuple[int, Any, Any]]:
    def send(name: str) -> tuple[int, Any, Any]:
        request = urllib.request.Request(
            f"http://{server.http}/v2/models/m/infer",
            data=json.dumps(BODY).encode(),
            headers={"Authorization": f"Bearer {secrets[name]}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=patience()) as answer:
                return answer.status, json.load(answer), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, json.load(error), error.headers

    return send


def test_costs_are_told_counted_limited_and_written_down(
    server: RunningServer,
    secrets: dict[str, str],
    ask: Callable[[str], tuple[int, Any, Any]],
    folder: Path,
) -> None:
    status, _, headers = ask("rich")
    assert status == 200
    cost = float(headers["x-trivet-cost"])
    assert cost > 0
    assert ask("poor")[0] == 200
    refused, document, headers = ask("poor")
    assert refused == 429
    assert "key 'poor' has reached its limit of a cost of 1e-09 per day" in document["error"]
    assert int(headers["Retry-After"]) > 0
    assert ask("rich")[0] == 200

    page = urllib.request.Request(
        f"http://127.0.0.1:{server.metrics_port}/metrics",
        headers={"Authorization": f"Bearer {secrets['rich']}"},
    )
    with urllib.request.urlopen(page, timeout=patience()) as answer:
        text = answer.read().decode()
    assert 'trivet_cost_total{key="rich",model="m",version="1"}' in text

    with grpc.insecure_channel(server.grpc) as channel:
        ask_one = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        asked = pb.ModelInferRequest(model_name="m")
        tensor = asked.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 16])
        tensor.contents.fp32_contents.extend([1.0] * 16)
        metadata = [("authorization", f"Bearer {secrets['rich']}")]
        _, call = ask_one.with_call(asked, metadata=metadata, timeout=patience())
    assert float(dict(call.trailing_metadata())["x-trivet-cost"]) > 0

    server.stop()
    arguments = ["cost", f"--state-dir={folder}/state", "-o", "json", "--by-key"]
    told = json.loads(CliRunner().invoke(main, arguments).output)
    assert {row["key"]: row["requests"] for row in told} == {"rich": 3, "poor": 1}
    assert all(row["model"] == "m" and row["cost"] > 0 for row in told)
