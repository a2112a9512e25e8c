"""Models that ask other models, written as a repository, and calls of them."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fault_models import REPEAT
from sequence_models import write_accumulator
from serving import RunningServer, write_adder

BLS = """
import asyncio
import gc
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils


def make(model, x, **options):
    names = {"repeat": ("IN", "OUT"), "identity": ("INPUT0", "OUTPUT0")}
    source, target = names.get(model.split("@")[0], ("x", "y"))
    model, _, version = model.partition("@")
    return pb_utils.InferenceRequest(
        model_name=model, model_version=int(version or -1), requested_output_names=[target],
        inputs=[pb_utils.Tensor(source, x)], **options)


def value(response):
    if response.has_error():
        raise pb_utils.TritonModelException(f"{response.error().code()}: {response.error()}")
    return response.output_tensors()[0].as_numpy()


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        self.request = request
        command = pb_utils.get_input_tensor_by_name(request, "COMMAND").as_numpy()[0].decode()
        word, *arguments = command.split()
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        try:
            y = getattr(self, "do_" + word)(x, *arguments)
        except pb_utils.TritonModelException as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        y = np.asarray(y, np.float32).reshape(-1)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])

    def do_ask(self, x, model, timeout="0"):
        return value(make(model, x, timeout=int(timeout)).exec())

    def do_traced(self, x, model):
        assert "traceparent" in self.request.trace().get_context()
        return value(make(model, x, trace=self.request.trace()).exec())

    def do_chain(self, x, model, number):
        for _ in range(int(number)):
            x = value(make(model, x).exec())
        return x

    def do_sequence(self, x, model, correlation_id):
        sums = []
        for number, each in enumerate(x):
            flags = pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START if number == 0 else 0
            if number == len(x) - 1:
                flags |= pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END
            key = int(correlation_id) if correlation_id.isdecimal() else correlation_id
            asked = pb_utils.InferenceRequest(
                model_name=model, requested_output_names=["OUTPUT"], flags=flags,
                correlation_id=key,
                inputs=[pb_utils.Tensor("INPUT", np.full((1, 1), each, np.int32))])
            sums.append(value(asked.exec()).ravel()[0])
        return sums

    def do_parameters(self, x, model):
        response = make(model, x, parameters={"tag": "t1"}, request_id="nested").exec()
        return value(response)

    def do_gather(self, x, model, number):
        async def all_of_them():
            asked = [make(model, x + index).async_exec() for index in range(int(number))]
            return [value(response)[0] for response in await asyncio.gather(*asked)]
        return asyncio.run(all_of_them())

    def do_threads(self, x, model, number):
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(make(model, x + n).exec) for n in range(int(number))]
            return [value(each.result())[0] for each in asked]

    def do_stream(self, x):
        asked = make("repeat", x.astype(np.int32)).exec(decoupled=True)
        return [value(response)[0] for response in asked]

    def do_astream(self, x):
        async def all_of_it():
            asked = await make("repeat", x.astype(np.int32)).async_exec(decoupled=True)
            return [value(response)[0] async for response in asked]
        return asyncio.run(all_of_it())

    def do_first(self, x):
        return value(next(make("repeat", x.astype(np.int32)).exec(decoupled=True)))

    def do_single(self, x):
        return value(make("repeat", x.astype(np.int32)).exec())

    def do_again(self, x):
        return value(self.request.exec())

    def do_load(self, x, model):
        pb_utils.load_model(model)
        return [pb_utils.is_model_ready(model)]

    def do_unload(self, x, model):
        pb_utils.unload_model(model)
        return [pb_utils.is_model_ready(model)]

    def do_ready(self, x, model, version=""):
        return [pb_utils.is_model_ready(model, version)]

    def do_files(self, x):
        pb_utils.load_model("adder", files={"file:1/model.onnx": b"x"})

    def do_pid(self, x):
        return [os.getpid()]

    def do_leak(self, x, size, number):
        big = np.arange(int(size), dtype=np.float32)
        for index in range(int(number)):
            response = make("identity", big).exec()
            assert np.array_equal(value(response), big)
            del response
        gc.collect()
        mapped = [line for line in open("/proc/self/maps") if "trivet-tensors" in line]
        return [len(mapped), len(os.listdir("/proc/self/fd"))]
"""

ASYNC_BLS = """
import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        return [await self._answer(request) for request in requests]

    async def _answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x")
        ask = pb_utils.InferenceRequest(
            model_name="adder", requested_output_names=["y"], inputs=[x])
        one, other = await asyncio.gather(ask.async_exec(), ask.async_exec())
        both = [pb_utils.get_output_tensor_by_name(each, "y").as_numpy() for each in (one, other)]
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", sum(both))])
"""

DECOUPLED_BLS = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            ask = pb_utils.InferenceRequest(
                model_name="repeat", requested_output_names=["OUT"],
                inputs=[pb_utils.Tensor("IN", x.astype("int32"))])
            for response in ask.exec(decoupled=True):
                y = response.output_tensors()[0].as_numpy().astype("float32")
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("y", y)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

EAGER = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        pb_utils.InferenceRequest(
            model_name="adder", inputs=[pb_utils.Tensor("x", np.zeros(1, np.float32))]).exec()

    def execute(self, requests):
        return []
"""

MIRROR = """
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        number = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[0]
        if number == -1:
            os._exit(3)
        if number > 1:
            self._wait(request, number)
        y = np.array([request.is_cancelled()], np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])

    def _wait(self, request, number):
        folder = os.path.dirname(__file__)
        open(os.path.join(folder, "started"), "w").close()
        ends_at = time.monotonic() + number
        while time.monotonic() < ends_at:
            if request.is_cancelled():
                open(os.path.join(folder, "cancelled"), "w").close()
                return
            time.sleep(0.005)
"""

IDENTITY = """
backend: "identity"
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }]
"""

ENSEMBLE = """
platform: "ensemble"
input [{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }]
ensemble_scheduling { step [
  { model_name: "adder" input_map { key: "x" value: "x" } output_map { key: "y" value: "mid" } },
  { model_name: "adder" input_map { key: "x" value: "mid" } output_map { key: "y" value: "y" } }
] }
"""


def write_python(
    repository: Path, name: str, source: str, *, isolation: str = "process", more: str = ""
) -> Path:
    """A Python model from FP32 x, and COMMAND if it reads one, to FP32 y; returns its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(source)
    command = (
        '{ name: "COMMAND" data_type: TYPE_STRING dims: [ 1 ] },' if "COMMAND" in source else ""
    )
    (folder / "config.pbtxt").write_text(
        textwrap.dedent(f"""
        backend: "python"
        input [ {command} {{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }} ]
        output [{{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }}]
        parameters {{ key: "isolation" value {{ string_value: "{isolation}" }} }}
        """)
        + more
    )
    return folder


def write_config(repository: Path, name: str, config: str) -> None:
    """A model without files."""
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)


def write_all(repository: Path) -> Path:
    """Everything that the tests ask."""
    write_adder(repository, "adder", 1)
    write_adder(repository, "adder", 2)
    write_adder(repository, "spare", 1)
    write_config(repository, "repeat", REPEAT)
    write_config(repository, "identity", IDENTITY)
    write_config(repository, "pair", ENSEMBLE)
    write_python(repository, "mirror", MIRROR)
    write_accumulator(repository, "summing")
    write_accumulator(repository, "summing_texts", corrid="STRING")
    for isolation in ("process", "none"):
        write_python(repository, f"bls_{isolation}", BLS, isolation=isolation)
        write_python(repository, f"async_{isolation}", ASYNC_BLS, isolation=isolation)
        write_python(
            repository, f"decoupled_{isolation}", DECOUPLED_BLS, isolation=isolation,
            more="model_transaction_policy { decoupled: true }\n",
        )  # fmt: skip
    write_python(repository, "other", BLS)
    return repository


def body(x: Any, command: str = "", **parameters: Any) -> bytes:
    """An inference request over HTTP."""
    array = np.asarray(x, np.float32).reshape(-1)
    inputs: list[dict[str, Any]] = [
        {"name": "x", "datatype": "FP32", "shape": [len(array)], "data": array.tolist()}
    ]
    if command:
        inputs.append({"name": "COMMAND", "datatype": "BYTES", "shape": [1], "data": [command]})
    return orjson.dumps({"inputs": inputs, "parameters": parameters})


def path(server: RunningServer, model: str, kind: str = "infer") -> str:
    """Where a model is asked."""
    return f"http://{server.http}/v2/models/{model}/{kind}"
