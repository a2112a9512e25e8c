"""Request bytes of one inference, as HTTP (binary tensors) and as gRPC."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from bench.echo import METHOD
from bench.http1 import request_bytes
from bench.load import Load
from bench.processes import Listener
from trivet.protos.grpc_service_pb2 import ModelInferRequest

DATATYPES = {"f": "FP32", "i": "INT64", "O": "BYTES"}


@dataclass(frozen=True, slots=True)
class Request:
    """The files that load clients read: one per protocol, and what answers must contain."""

    files: dict[str, Path]
    payload: Path

    def load(
        self,
        protocol: str,
        listener: Listener,
        concurrency: int,
        seconds: float,
        warmup_seconds: float = 0.7,
    ) -> Load:
        """This request against a listener."""
        return Load(
            protocol=protocol,
            port=listener.ports[protocol],
            server_pid=listener.pid,
            concurrency=concurrency,
            seconds=seconds,
            warmup_seconds=warmup_seconds,
            request_file=str(self.files[protocol]),
            payload_file=str(self.payload),
            path=METHOD,
        )


def write_request(
    folder: Path, model: str, inputs: dict[str, "np.ndarray"], payload: bytes
) -> Request:
    """Writes the request's files."""
    files = {"http": folder / f"{model}.http", "grpc": folder / f"{model}.grpc"}
    files["http"].write_bytes(_http(model, inputs))
    files["grpc"].write_bytes(_grpc(model, inputs))
    (folder / f"{model}.payload").write_bytes(payload)
    return Request(files, folder / f"{model}.payload")


def write_shared_request(
    folder: Path, model: str, num_floats: int, regions: tuple[str, str]
) -> Request:
    """Writes a request whose input and output lie in two registered regions."""
    size = num_floats * 4
    places = [
        {"shared_memory_region": region, "shared_memory_byte_size": size} for region in regions
    ]
    shape = [num_floats]
    text = {
        "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": shape, "parameters": places[0]}],
        "outputs": [{"name": "OUTPUT0", "parameters": places[1]}],
    }
    message = ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="INPUT0", datatype="FP32", shape=shape)
    output = message.outputs.add(name="OUTPUT0")
    for owner, region in ((tensor, regions[0]), (output, regions[1])):
        owner.parameters["shared_memory_region"].string_param = region
        owner.parameters["shared_memory_byte_size"].int64_param = size
    files = {"http": folder / "shared.http", "grpc": folder / "shared.grpc"}
    files["http"].write_bytes(request_bytes(_path(model), {}, orjson.dumps(text)))
    files["grpc"].write_bytes(message.SerializeToString())
    (folder / "shared.payload").write_bytes(b"OUTPUT0")
    return Request(files, folder / "shared.payload")


def _path(model: str) -> str:
    return f"/v2/models/{model}/infer"


def _bytes(array: "np.ndarray") -> bytes:
    if array.dtype.kind != "O":
        return array.tobytes()
    return b"".join(len(text).to_bytes(4, "little") + text for text in array.ravel())


def _http(model: str, inputs: dict[str, "np.ndarray"]) -> bytes:
    tensors = [
        {
            "name": name,
            "shape": array.shape,
            "datatype": DATATYPES[array.dtype.kind],
            "parameters": {"binary_data_size": len(_bytes(array))},
        }
        for name, array in inputs.items()
    ]
    text = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    body = text + b"".join(_bytes(array) for array in inputs.values())
    headers = {"Inference-Header-Content-Length": str(len(text))}
    headers["Content-Type"] = "application/octet-stream"
    return request_bytes(_path(model), headers, body)


def _grpc(model: str, inputs: dict[str, "np.ndarray"]) -> bytes:
    message = ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        datatype = DATATYPES[array.dtype.kind]
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(_bytes(array))
    return message.SerializeToString()
