"""What happens to requests when clients leave, time runs out or the server ends."""

import json
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from fault_models import write_crash, write_model
from fault_room import (
    GOOD_DATA,
    Room,
    good_body,
    metric,
    pending,
    read,
    read_all,
    statistics,
)
from gated_models import Gate, write_gated
from patience import patience
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb

Serve = Callable[..., RunningServer]
FAILURES = "nv_inference_request_failure"


def command(text: str) -> bytes:
    """A request to the model `crash`."""
    given = {"name": "COMMAND", "shape": [1], "datatype": "BYTES", "data": [text]}
    return json.dumps({"inputs": [given]}).encode()


def command_message(text: str) -> pb.ModelInferRequest:
    """The same over gRPC."""
    message = pb.ModelInferRequest(model_name="crash")
    given = message.inputs.add(name="COMMAND", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(text.encode())
    return message


def cancelled(room: Room, model: str) -> float:
    """How many requests of a model were counted as cancelled."""
    return sum(metric(room.server, FAILURES, model=model, reason="CANCELED"))


def send_and_leave(room: Room, model: str, body: bytes, until: Callable[[], bool]) -> None:
    """Sends a request over HTTP and breaks the connection off once the condition holds."""
    connection = room.connect()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + body)
    room.server.wait_until(until, "came to the point where the client leaves")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def call_and_cancel(room: Room, message: pb.ModelInferRequest, until: Callable[[], bool]) -> None:
    """The same over gRPC: cancels the call."""
    stub = room.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    call = stub.future(message.SerializeToString(), timeout=patience())
    room.server.wait_until(until, "came to the point where the client cancels")
    call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- clients that leave ------------------------------------------------------------------------


@pytest.mark.rows("G09")
@pytest.mark.usefixtures("unharmed")
def test_a_running_request_of_a_client_that_leaves_is_told_to_stop(
    room: Room, protocol: str, tmp_path: Path
) -> None:
    path = tmp_path / "work"
    before = cancelled(room, "crash")
    started = Path(f"{path}.started").exists
    if protocol == "http":
        send_and_leave(room, "crash", command(f"watch {path}"), started)
    else:
        call_and_cancel(room, command_message(f"watch {path}"), started)
    room.server.wait_until(Path(f"{path}.cancelled").exists, "told the model")
    room.server.wait_until(lambda: cancelled(room, "crash") == before + 1, "counted it")


@pytest.mark.rows("G09")
@pytest.mark.usefixtures("unharmed")
def test_a_waiting_request_of_a_client_that_leaves_is_never_computed(
    room: Room, protocol: str
) -> None:
    executions = int(statistics(room.server, "slow")["execution_count"])
    before = cancelled(room, "slow")
    with ThreadPoolExecutor(3) as pool:
        # One or two are computed, the others wait behind them.
        kept = [pool.submit(room.post, "/v2/models/slow/infer", slow_body()) for _ in range(3)]
        room.server.wait_until(lambda: pending(room.server) >= 1, "queued")
        waiting = pending(room.server)
        if protocol == "http":
            send_and_leave(room, "slow", slow_body(), lambda: pending(room.server) > waiting)
        else:
            call_and_cancel(room, slow_message(), lambda: pending(room.server) > waiting)
        room.server.wait_until(lambda: cancelled(room, "slow") == before + 1, "counted it")
        assert [each.result().status for each in kept] == [200, 200, 200]
    assert int(statistics(room.server, "slow")["execution_count"]) == executions + 3


def slow_body() -> bytes:
    given = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": GOOD_DATA}
    return json.dumps({"inputs": [given]}).encode()


def slow_message() -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="slow")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    message.raw_input_contents.append(np.array(GOOD_DATA, np.float32).tobytes())
    return message


@pytest.mark.usefixtures("unharmed")
def test_a_deadline_ends_the_call_and_the_work(room: Room, tmp_path: Path) -> None:
    path = tmp_path / "work"
    watch = command_message(f"watch {path}").SerializeToString()
    code, _ = room.refusal("ModelInfer", watch, timeout_s=patience(0.5))
    assert code == "DEADLINE_EXCEEDED"
    room.server.wait_until(Path(f"{path}.cancelled").exists, "told the model")


@pytest.mark.rows("G09")
def test_a_storm_of_cancelled_calls_leaves_nothing_behind(room: Room) -> None:
    stub = room.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    message = slow_message().SerializeToString()
    calls = [stub.future(message, timeout=patience()) for _ in range(500)]
    for call in calls:
        call.cancel()
    room.server.wait_until(lambda: pending(room.server) == 0, "emptied the queue")
    room.assert_unharmed()
    room.assert_settled()


# -- the server ends ---------------------------------------------------------------------------


class Ending:
    """A server with requests in progress on both protocols until the gate opens, about to be told
    to stop."""

    def __init__(self, server: RunningServer, repository: Path, gate: Gate) -> None:
        self.gate = gate
        self.room = Room(server, repository)
        self.pool = ThreadPoolExecutor(4)
        self.requests = [
            self.pool.submit(self.room.post, "/v2/models/slow/infer", slow_body()) for _ in range(2)
        ]
        self.calls = [self.pool.submit(self.room.infer, slow_message()) for _ in range(2)]
        self.keep_alive = self.room.http()
        self.keep_alive.request("POST", "/v2/models/good/infer", good_body())
        assert read(self.keep_alive).status == 200
        server.wait_until(lambda: pending(server) == 3, "took all requests")

    def close(self) -> None:
        self.pool.shutdown()
        self.keep_alive.close()
        self.room.close()


@pytest.fixture
def ending(serve: Serve, models: Path) -> Iterator[Ending]:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    gate = Gate(models.parent / "gate")
    write_gated(models, "slow", gate, more="dynamic_batching {}")
    with gate.shut():
        ending = Ending(serve(models, f"--exit-timeout-secs={patience()}"), models, gate)
        yield ending
    ending.close()


def is_refused(connect: Callable[[], socket.socket]) -> bool:
    try:
        connect().close()
    except OSError:
        return True
    return False


def test_sigterm_answers_what_was_taken_and_refuses_what_is_new(ending: Ending) -> None:
    server = ending.room.server
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: is_refused(ending.room.connect), "refused new connections")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            stub(b"", timeout=patience())
    ending.gate.open()
    assert [each.result().status for each in ending.requests] == [200, 200]
    wanted = np.array(GOOD_DATA, np.float32).tobytes()
    assert [each.result().raw_output_contents[0] for each in ending.calls] == [wanted, wanted]
    assert server.process.wait(patience()) == 0


def test_sigterm_without_requests_ends_at_once(serve: Serve, models: Path) -> None:
    write_crash(models)
    server = serve(models)
    idle = socket.create_connection(("127.0.0.1", server.http_port))
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < patience(5)
    assert read_all(idle) == b""
    idle.close()


def test_a_request_longer_than_the_exit_timeout_is_broken_off(
    serve: Serve, models: Path, tmp_path: Path
) -> None:
    """Even where the model does not listen to cancellation: its process is killed."""
    path = tmp_path / "work"
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    write_crash(models)
    server = serve(models, "--exit-timeout-secs=1")
    children = psutil.Process(server.process.pid).children(recursive=True)
    with socket.create_connection(
        ("127.0.0.1", server.http_port), timeout=patience()
    ) as connection:
        body = command(f"hang {path}")
        connection.sendall(
            b"POST /v2/models/crash/infer HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        server.wait_until(Path(f"{path}.started").exists, "began")
        server.process.send_signal(signal.SIGTERM)
        answer = read_all(connection)
    assert b" 200 " not in answer
    assert server.process.wait(patience()) == 0
    _, alive = psutil.wait_procs(children, timeout=patience())
    assert alive == []


def test_a_second_signal_ends_the_server_at_once(ending: Ending) -> None:
    server = ending.room.server
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.send_signal(signal.SIGTERM)
    server.wait_until(lambda: any("draining" in line for line in server.output), "began to drain")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(patience()) == 1
    _, alive = psutil.wait_procs(children, timeout=patience())
    assert alive == []
    for request in ending.requests:
        assert isinstance(request.exception(), OSError)
    for call in ending.calls:
        assert isinstance(call.exception(), grpc.RpcError)
