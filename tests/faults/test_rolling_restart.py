"""Two servers behind a real nginx are restarted one after the other while clients go on: nobody
notices."""

import http.client
import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from fault_load import Callers, callers
from fault_models import write_held, write_model, write_repeat, write_slow_models
from fault_room import GOOD_DATA, good_body, good_message
from nginx_site import Nginx, free_ports
from patience import patience
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb

Serve = Callable[..., RunningServer]
DELAY_S = patience(1)
STREAM_LENGTH = 8


class Pair:
    """Two servers on ports that they keep over restarts, the nginx before them, and what tells it
    which of them are ready, as an ingress controller does."""

    def __init__(self, serve: Serve, repository: Path, folder: Path) -> None:
        self._serve = serve
        self._repository = repository
        ports = free_ports(4)
        self._http, self._grpc = ports[:2], ports[2:]
        self.nginx = Nginx(folder)
        self._routed: list[int] = []
        self.servers = [self._start(index) for index in range(2)]
        self._done = threading.Event()
        self._route()
        self._watch = threading.Thread(target=self._keep_routing)
        self._watch.start()

    def restart(self, index: int) -> None:
        """Ends one of the servers as an orchestrator does, and starts its successor."""
        assert self.servers[index].stop() == 0
        self.servers[index] = self._start(index)
        self.servers[index].wait_until(lambda: index in self._routed, "routed to")

    def close(self) -> None:
        self._done.set()
        self._watch.join()
        self.nginx.stop()

    def _start(self, index: int) -> RunningServer:
        return self._serve(
            self._repository,
            f"--http-port={self._http[index]}",
            f"--grpc-port={self._grpc[index]}",
            f"--drain-delay-secs={DELAY_S}",
        )

    def _keep_routing(self) -> None:
        while not self._done.wait(0.05):
            self._route()

    def _route(self) -> None:
        ready = [index for index in range(2) if self.servers[index].is_ready()]
        if ready != self._routed:
            self.nginx.route([self._http[i] for i in ready], [self._grpc[i] for i in ready])
            self._routed = ready


@pytest.fixture
def pair(serve: Serve, models: Path, tmp_path: Path) -> Iterator[Pair]:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    write_repeat(models)
    write_slow_models(models, 100)
    folder = tmp_path / "nginx"
    folder.mkdir()
    pair = Pair(serve, models, folder)
    yield pair
    pair.close()


def add_clients(running: Callers, pair: Pair) -> None:
    """nginx keeps its connections to the servers."""
    for _ in range(3):
        running.add(_unary(pair))
    running.add(_slow(pair))
    running.add(_stream(pair))
    channel = running.resources.enter_context(
        grpc.insecure_channel(f"127.0.0.1:{pair.nginx.grpc_port}")
    )
    running.add(_grpc(channel))
    running.add(_grpc_stream(channel))


def _unary(pair: Pair) -> Callable[[], str]:

    def ask() -> str:
        outputs = json.loads(_post(pair, "good/infer", good_body()))["outputs"]
        assert outputs[0]["data"] == GOOD_DATA
        return "unary"

    return ask


def _slow(pair: Pair) -> Callable[[], str]:
    """A request that is being computed for a while."""
    given = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": GOOD_DATA}
    body = json.dumps({"inputs": [given]}).encode()

    def ask() -> str:
        _post(pair, "slow/infer", body)
        return "slow"

    return ask


def _stream(pair: Pair) -> Callable[[], str]:
    """Server-sent events over almost a second."""
    body = json.dumps({"IN": list(range(STREAM_LENGTH)), "DELAY": [100] * STREAM_LENGTH}).encode()

    def ask() -> str:
        text = _post(pair, "decoupled/generate_stream", body).decode()
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        assert [event["OUT"] for event in events] == list(range(STREAM_LENGTH)), text
        return "stream"

    return ask


def _post(pair: Pair, path: str, body: bytes) -> bytes:
    """On a connection of its own: nginx closes idle ones when its servers change."""
    client = http.client.HTTPConnection("127.0.0.1", pair.nginx.http_port, timeout=patience())
    with closing(client):
        client.request("POST", f"/v2/models/{path}", body)
        answer = client.getresponse()
        text = answer.read()
    assert answer.status == 200, (answer.status, text[:200])
    return text


def _grpc(channel: grpc.Channel) -> Callable[[], str]:
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    message = good_message("good").SerializeToString()

    def ask() -> str:
        answer = pb.ModelInferResponse.FromString(infer(message, timeout=patience()))
        assert answer.raw_output_contents
        return "grpc"

    return ask


def _grpc_stream(channel: grpc.Channel) -> Callable[[], str]:
    infer = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    message = pb.ModelInferRequest(model_name="decoupled")
    for name, datatype in (("IN", "INT32"), ("DELAY", "UINT32")):
        message.inputs.add(name=name, datatype=datatype, shape=[STREAM_LENGTH])
    message.inputs[0].contents.int_contents.extend(range(STREAM_LENGTH))
    message.inputs[1].contents.uint_contents.extend([100] * STREAM_LENGTH)
    data = message.SerializeToString()

    def ask() -> str:
        answers = [
            pb.ModelStreamInferResponse.FromString(each)
            for each in infer(iter([data]), timeout=patience())
        ]
        assert [each.error_message for each in answers] == [""] * len(answers)
        assert sum(bool(each.infer_response.outputs) for each in answers) == STREAM_LENGTH
        return "grpc stream"

    return ask


def test_a_rolling_restart_behind_nginx_loses_no_request(pair: Pair) -> None:
    with callers() as running:
        add_clients(running, pair)
        for index in (0, 1):
            pair.restart(index)
    assert running.faults == [], f"{running.faults[:5]}\n{pair.nginx.errors()}"
    kinds = ("unary", "slow", "stream", "grpc", "grpc stream")
    assert min(running.counts[kind] for kind in kinds) >= 3, running.counts


def test_during_the_delay_requests_are_served_and_clients_asked_to_connect_anew(
    serve: Serve, models: Path
) -> None:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    server = serve(models, f"--drain-delay-secs={DELAY_S}")
    client = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=patience())
    client.request("POST", "/v2/models/good/infer", good_body())
    before = client.getresponse()
    before.read()
    assert before.getheader("connection") is None
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: server.get("/v2/health/ready")[0] == 503, "not ready")
    client.request("POST", "/v2/models/good/infer", good_body())
    during = client.getresponse()
    assert (during.status, during.getheader("connection")) == (200, "close")
    during.read()
    client.close()
    with grpc.insecure_channel(server.grpc) as channel:
        assert _grpc(channel)() == "grpc"
    assert server.process.wait(patience()) == 0


def test_a_request_that_comes_while_models_load_is_told_to_try_again(
    serve: Serve, models: Path
) -> None:
    """Ports open before models load, so a balancer without health checks may send some."""
    hold = write_held(models)
    (port,) = free_ports(1)
    server = serve(models, f"--http-port={port}", wait=False)
    server.http_port = port  # it is told only once all models are loaded
    server.wait_until(lambda: server.get("/v2/health/live")[0] == 200, "listening")
    refused = http.client.HTTPConnection("127.0.0.1", port, timeout=patience())
    refused.request("POST", "/v2/models/another/infer", good_body())
    answer = refused.getresponse()
    assert (answer.status, answer.getheader("retry-after")) == (503, "1")
    assert "the server is starting and still loads models" in answer.read().decode()
    hold.unlink()
    server.wait_until(server.is_ready, "ready")
    refused.request("POST", "/v2/models/another/infer", good_body())
    answer = refused.getresponse()
    assert answer.status == 400
    assert "'another' is not found" in answer.read().decode()
    refused.close()
    assert server.stop() == 0
