"""What is asked: request bodies as h2load sends them, and one checked call of each."""

import struct
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import orjson

from bench.echo import METHOD
from bench.peers.repository import Inputs
from bench.processes import Listener
from trivet.protos.grpc_service_pb2 import ModelInferRequest

DATATYPES = {"f": "FP32", "O": "BYTES"}
OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Body:
    """A request without its port."""

    protocol: str
    path: str
    headers: tuple[tuple[str, str], ...]
    content: bytes
    payload: bytes
    """What an answer contains."""


def grpc_body(model: str, inputs: Inputs, *, dressed: bool = False) -> Body:
    """One message in its frame. `dressed`: with an id, a parameter, outputs named, metadata."""
    message = ModelInferRequest(model_name=model)
    for name, values in inputs.items():
        message.inputs.add(name=name, datatype=DATATYPES[values.dtype.kind], shape=values.shape)
        message.raw_input_contents.append(_raw(values))
    headers = [("content-type", "application/grpc"), ("te", "trailers")]
    if dressed:
        message.id = "request-17"
        message.parameters["purpose"].string_param = "bench"
        for name in inputs:
            message.outputs.add(name=name.replace("INPUT", "OUTPUT"))
        headers += [("user-agent", "bench/1"), ("x-tenant", "somebody")]
    text = message.SerializeToString()
    frame = struct.pack(">BI", 0, len(text)) + text
    return Body("grpc", METHOD, tuple(headers), frame, _raw(next(iter(inputs.values()))))


def http_body(model: str, inputs: Inputs, *, dressed: bool = False) -> Body:
    """JSON with binary tensors behind it."""
    described = [
        {**_described(name, values), "parameters": {"binary_data_size": len(_raw(values))}}
        for name, values in inputs.items()
    ]
    document: dict[str, object] = {"id": "request-17"} if dressed else {}
    document |= {"inputs": described, "parameters": {"binary_data_output": True}}
    headers = [("Content-Type", OCTETS)]
    if dressed:
        document["parameters"] = {"purpose": "bench"}
        document["outputs"] = [
            {"name": name.replace("INPUT", "OUTPUT"), "parameters": {"binary_data": True}}
            for name in inputs
        ]
        headers += [("User-Agent", "bench/1"), ("Accept", "*/*"), ("X-Tenant", "somebody")]
    text = orjson.dumps(document)
    headers.append(("Inference-Header-Content-Length", str(len(text))))
    raw = [_raw(values) for values in inputs.values()]
    return Body("http", _path(model), tuple(headers), text + b"".join(raw), raw[0])


def json_body(model: str, inputs: Inputs) -> Body:
    """JSON alone."""
    described = [
        {**_described(name, values), "data": values.ravel().tolist()}
        for name, values in inputs.items()
    ]
    headers = (("Content-Type", "application/json"),)
    return Body("http", _path(model), headers, orjson.dumps({"inputs": described}), b'"data":[')


def call(body: Body, server: Listener) -> bytes:
    """The answer to one request. Raises RuntimeError where it does not hold the payload."""
    port = server.ports[body.protocol]
    if body.protocol == "grpc":
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            ask = channel.unary_unary(body.path, lambda sent: sent, lambda got: got)
            answer: bytes = ask(body.content[5:], timeout=30)
    else:
        url = f"http://127.0.0.1:{port}{body.path}"
        request = urllib.request.Request(url, body.content, dict(body.headers))
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = response.read()
    if body.payload not in answer:
        raise RuntimeError(f"the answer to {body.path} is not the input: {answer[:300]!r}")
    return answer


def write_body(body: Body, folder: Path) -> Path:
    """A file with its content."""
    file = folder / f"{body.protocol}-{abs(hash(body.content))}.body"
    if not file.exists():
        file.write_bytes(body.content)
    return file


def _path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _described(name: str, values: np.ndarray) -> dict[str, object]:
    return {"name": name, "datatype": DATATYPES[values.dtype.kind], "shape": values.shape}


def _raw(values: np.ndarray) -> bytes:
    if values.dtype.kind != "O":
        return values.tobytes()
    return b"".join(len(text).to_bytes(4, "little") + text for text in values.ravel())
