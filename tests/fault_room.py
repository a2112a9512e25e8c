"""A real server under bad input: asks it things, and checks after each that nothing is harmed."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import lateness
import numpy as np
import psutil
import pytest
from heard import hear, hear_bytes
from patience import patience
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb

# What no answer may hold: paths of this machine, addresses of objects, stack traces, reprs.
LEAKS = re.compile(
    r"/tmp/|/usr/|/home/|0x[0-9a-f]{6,}|Traceback|<[\w.]+ object|<class '|<built-in|\.py\b"
    r"|swordfish"
)
MIB = 1024 * 1024
POOL_THREADS = 12
"""Threads that the event loop's and grpcio's pools may start late and keep: they have a cap."""
GOOD_DATA = [1.0, -2.5, 3.25, 4.0]
SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The text of a v2 error."""
        document = json.loads(self.body)
        assert set(document) == {"error"}, document
        text: str = document["error"]
        return text


@dataclass(frozen=True)
class Vitals:
    """What the server process holds at one moment."""

    num_fds: int
    num_threads: int
    rss_bytes: int
    children: frozenset[int]

    @classmethod
    def of(cls, pid: int) -> "Vitals":
        process = psutil.Process(pid)
        return cls(
            len(open_files(pid)),
            process.num_threads(),
            process.memory_info().rss,
            frozenset(child.pid for child in process.children(recursive=True)),
        )


class Room:
    """A running server and a client of it that remembers how the server was at first."""

    def __init__(self, server: RunningServer, repository: Path) -> None:
        self.server = server
        self.repository = repository
        self.pid = server.process.pid
        self._http = HTTPConnection("127.0.0.1", server.http_port, timeout=patience())
        self.channel = grpc.insecure_channel(
            server.grpc, options=[("grpc.max_send_message_length", -1)]
        )
        self._warm_up()
        self.baseline = Vitals.of(self.pid)

    def _warm_up(self) -> None:
        for _ in range(20):
            self.assert_unharmed()
        assert self.infer(good_message("good")).raw_output_contents
        self.post("/v2/repository/index", b"{}")
        self.server.metrics()
        self.http()

    def settle_baseline(self) -> None:
        """Compares from now on with how the server is now: it has warmed up."""
        self.baseline = Vitals.of(self.pid)

    def close(self) -> None:
        self._http.close()
        self.channel.close()

    # -- HTTP ----------------------------------------------------------------------------------

    def http(self) -> HTTPConnection:
        """A new connection."""
        return HTTPConnection("127.0.0.1", self.server.http_port, timeout=patience())

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
        """A POST on a connection of its own."""
        return self.request("POST", path, body, headers or {})

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Any request on a connection of its own; no answer may tell about the machine."""
        connection = self.http()
        try:
            connection.request(method, path, body, headers or {})
            return checked(read(connection))
        finally:
            connection.close()

    def send_raw(self, data: bytes, *, half_close: bool = False) -> bytes:
        """Sends bytes as they are and returns all that comes until the server closes."""
        with self.connect() as connection:
            try:
                connection.sendall(data)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            return read_all(connection)

    def connect(self, port: int | None = None) -> socket.socket:
        address = ("127.0.0.1", port or self.server.http_port)
        return socket.create_connection(address, timeout=patience())

    # -- gRPC ----------------------------------------------------------------------------------

    def call(
        self, method: str, message: bytes, *, timeout_s: float | None = None, metadata: Any = None
    ) -> bytes:
        """A unary call of any bytes, with a deadline that is to pass or none that could; raises
        grpc.RpcError."""
        path = method if method.startswith("/") else SERVICE + method
        stub = self.channel.unary_unary(path)
        deadline_s = patience() if timeout_s is None else timeout_s
        answer: bytes = stub(message, timeout=deadline_s, metadata=metadata)
        return answer

    def refusal(self, method: str, message: bytes, **more: Any) -> tuple[str, str]:
        """Status and text of a call that must fail; no text may tell about the machine."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, message, **more)
        call: Any = caught.value
        text = str(call.details())
        assert not LEAKS.search(text), text
        hear(code=call.code().name, text=text)
        return call.code().name, text

    def infer(self, message: pb.ModelInferRequest, **more: Any) -> pb.ModelInferResponse:
        return pb.ModelInferResponse.FromString(
            self.call("ModelInfer", message.SerializeToString(), **more)
        )

    # -- promises ------------------------------------------------------------------------------

    def assert_unharmed(self) -> None:
        """Live, and a good request on another model gives the exact answer."""
        self._http.request("GET", "/v2/health/live")
        assert read(self._http).status == 200
        self.assert_good(self._http)

    def assert_good(self, connection: HTTPConnection) -> None:
        """A good request over this connection gives the exact answer."""
        connection.request("POST", "/v2/models/good/infer", good_body())
        answer = read(connection)
        assert answer.status == 200, answer
        assert json.loads(answer.body)["outputs"][0]["data"] == GOOD_DATA

    def assert_settled(self, max_growth_bytes: int = 64 * MIB) -> None:
        """The same process, with the files, threads and memory that it had at first."""
        assert self.server.process.poll() is None, "".join(self.server.output[-40:])
        deadline = time.monotonic() + patience()
        while (leak := self._leak()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not leak, leak
        growth = Vitals.of(self.pid).rss_bytes - self.baseline.rss_bytes
        assert growth <= max_growth_bytes, f"memory grew by {growth / MIB:.0f} MiB"
        assert pending(self.server) == 0
        logged = "".join(self.server.output)
        assert "never retrieved" not in logged, logged
        assert "Task was destroyed" not in logged, logged

    def _leak(self) -> str:
        now, then = Vitals.of(self.pid), self.baseline
        if now.num_fds > then.num_fds:
            return f"{now.num_fds} descriptors, {then.num_fds} at first: {open_files(self.pid)}"
        if now.num_threads > then.num_threads + POOL_THREADS:
            return f"{now.num_threads} threads, {then.num_threads} at first"
        if len(now.children) != len(then.children):
            return f"children {sorted(now.children)}, {sorted(then.children)} at first"
        return ""

    @contextmanager
    def memory_bound(self, max_growth_bytes: int) -> Iterator[None]:
        """The block must not make the server's memory grow by more, even for a moment."""
        start = Vitals.of(self.pid).rss_bytes
        peak = [start]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.005):
                peak[0] = max(peak[0], Vitals.of(self.pid).rss_bytes)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        growth = peak[0] - start
        assert growth <= max_growth_bytes, f"memory grew by {growth / MIB:.0f} MiB for a moment"

    @contextmanager
    def lateness_bound(self, max_late_s: float) -> Iterator[None]:
        """While the block runs, the server must answer others: none may wait longer than this."""
        command = [sys.executable, lateness.__file__, str(self.server.http_port), str(self.pid)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == "asking\n"
            try:
                yield
            finally:
                worst, _ = asking.communicate(timeout=patience())
        assert asking.returncode == 0
        assert float(worst) <= patience(max_late_s), f"others waited {float(worst):.3f} s"


def read(connection: HTTPConnection) -> Answer:
    """The answer to the request that was sent on the connection."""
    answer = connection.getresponse()
    headers = {key.lower(): value for key, value in answer.getheaders()}
    found = Answer(answer.status, answer.read(), headers)
    hear(found.status, text=found.body, headers=answer.headers)
    return found


def checked(answer: Answer) -> Answer:
    """The answer, if it tells nothing of the machine behind it."""
    text = answer.body.decode("latin-1")
    assert answer.status < 400 or not LEAKS.search(text), text
    assert "x-request-id" in answer.headers
    return answer


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection; a reset is an end."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionError:
        pass
    received = b"".join(pieces)
    hear_bytes(received, is_closed=True)
    return received


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """What comes until it holds these bytes, or ends."""
    received = b""
    while wanted not in received and (piece := connection.recv(1 << 16)):
        received += piece
    hear_bytes(received)
    return received


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process are. A socket is one, however many lead to it: that of a
    model's process is watched by a second one from its first request on."""
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(link.readlink()))
        except OSError:
            continue
    sockets = {name for name in names if name.startswith("socket:")}
    return sorted([*(name for name in names if name not in sockets), *sockets])


def pending(server: RunningServer) -> int:
    """Requests that wait in queues, over all models."""
    return sum(int(value) for value in metric(server, "nv_inference_pending_request_count"))


def metric(server: RunningServer, name: str, **labels: str) -> list[float]:
    """The values of a metric's series that have these labels."""
    lines = re.findall(rf"^{name}(\{{.*\}})? (\S+)$", server.metrics(), re.MULTILINE)
    return [
        float(value)
        for found, value in lines
        if all(f'{key}="{wanted}"' in found for key, wanted in labels.items())
    ]


def statistics(server: RunningServer, model: str) -> dict[str, Any]:
    """What the statistics extension says of a model's only version."""
    status, text = server.get(f"/v2/models/{model}/stats")
    assert status == 200, text
    (found,) = json.loads(text)["model_stats"]
    return dict(found)


def json_input(name: str = "INPUT0", **changes: Any) -> dict[str, Any]:
    """An input as JSON, FP32 [1, 16] of ones with some fields changed; those set to ... are left
    out."""
    fields = {"name": name, "shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16} | changes
    return {key: value for key, value in fields.items() if value is not ...}


def good_message(model: str, values: list[float] | None = None) -> pb.ModelInferRequest:
    """A gRPC request of one FP32 [4] that is right."""
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="INPUT0", datatype="FP32", shape=[4])
    data = np.array(values or GOOD_DATA, np.float32)
    message.raw_input_contents.append(data.tobytes())
    return message


def good_body(values: list[float] | None = None, **more: Any) -> bytes:
    """The same over HTTP."""
    document = {"inputs": [json_input(data=values or GOOD_DATA, shape=[4])]} | more
    return json.dumps(document).encode()
