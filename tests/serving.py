"""A real server in a process of its own, on free ports, over a repository that the test fills."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heard import hear
from patience import patience

IDENTITY = """
backend: "identity"
max_batch_size: 8
input [{{ name: "INPUT0" data_type: {datatype} dims: [ {dims} ] }}]
output [{{ name: "OUTPUT0" data_type: {datatype} dims: [ {dims} ] }}]
{more}
"""


def write_identity(
    repository: Path, name: str, *, datatype: str = "TYPE_FP32", dims: str = "16", more: str = ""
) -> Path:
    """A model that returns its input; returns its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    config = IDENTITY.format(datatype=datatype, dims=dims, more=more)
    (folder / "config.pbtxt").write_text(config)
    return folder


@dataclass
class RunningServer:
    """A server process and where it listens."""

    process: subprocess.Popen[str]
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    output: list[str] = field(default_factory=list)

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET over HTTP."""
        status, text = _get(f"http://{self.http}{path}")
        hear(status, text=text)
        return status, text

    def post(self, path: str, body: Any) -> Any:
        """The JSON of a POST over HTTP, which must succeed."""
        request = urllib.request.Request(
            f"http://{self.http}{path}", data=json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=patience()) as answer:
            return json.load(answer)

    def metrics(self) -> str:
        return _get(f"http://127.0.0.1:{self.metrics_port}/metrics")[1]

    def index(self) -> dict[tuple[str, str], dict[str, str]]:
        """The repository index by model and version."""
        request = urllib.request.Request(f"http://{self.http}/v2/repository/index", data=b"{}")
        with urllib.request.urlopen(request, timeout=patience()) as answer:
            entries = json.load(answer)
        return {(entry["name"], entry.get("version", "")): entry for entry in entries}

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Polls until the condition holds."""
        deadline = time.monotonic() + patience()
        while not condition():
            assert self.process.poll() is None, "the server died:\n" + "".join(self.output)
            assert time.monotonic() < deadline, f"never {what}:\n" + "".join(self.output[-40:])
            time.sleep(0.02)

    def is_ready(self) -> bool:
        return self.http_port != 0 and _get(f"http://{self.http}/v2/health/ready")[0] == 200

    def end(self) -> None:
        """Kills it, if it still runs, and frees what it held here."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience())


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=patience()) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


LISTENING = re.compile(r"(HTTP|gRPC|metrics) .*?127\.0\.0\.1:(\d+)")


def start_server(repository: Path | str, *flags: str, wait: bool = True) -> RunningServer:
    """Starts `trivet serve` on free ports and waits until it is ready."""
    command = [sys.executable, "-m", "trivet", "serve", str(repository)]
    command += ["--http-port=0", "--grpc-port=0", "--metrics-port=0", *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    server = RunningServer(process)
    threading.Thread(target=_read, args=(server,), daemon=True).start()
    if wait:
        try:
            server.wait_until(server.is_ready, "ready")
        except BaseException:
            server.end()
            raise
    return server


def _read(server: RunningServer) -> None:
    assert server.process.stdout is not None
    for line in server.process.stdout:
        server.output.append(line)
        found = LISTENING.search(line)
        if found:
            setattr(server, f"{found[1].lower()}_port", int(found[2]))


def write_adder(repository: Path, name: str, version: int, *, amount: float | None = None) -> Path:
    """A model folder without config whose version adds `amount` (its own number) to one FP32 [1];
    it appears at once, by a rename. Returns the version's folder."""
    made = repository.parent / f"{repository.name}-{name}-{version}-{time.monotonic_ns()}"
    made.mkdir()
    (made / "model.onnx").write_bytes(adder_bytes(version if amount is None else amount))
    folder = repository / name / str(version)
    folder.parent.mkdir(exist_ok=True)
    made.rename(folder)
    return folder


def adder_bytes(amount: float, name: str = "x") -> bytes:
    """An ONNX model: y = x + amount, FP32 [1]; `name`: of its input."""
    from onnx import TensorProto, helper

    def value(label: str) -> Any:
        return helper.make_tensor_value_info(label, TensorProto.FLOAT, [1])

    constant = helper.make_tensor("amount", TensorProto.FLOAT, [1], [amount])
    node = helper.make_node("Add", [name, "amount"], ["y"])
    graph = helper.make_graph([node], "adder", [value(name)], [value("y")], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    serialised: bytes = model.SerializeToString()
    return serialised
