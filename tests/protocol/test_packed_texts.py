"""Texts travel packed: from the wire through ensembles, processes and models that ask models, and
back, nobody in the server makes Python objects of them unless a model wants some."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from serving import RunningServer, write_identity

SPY = """
import numpy as np
import triton_python_backend_utils as pb_utils
from trivet.backends.api.tensor import PackedBytes

count = 0


def spied(function):
    def counted(*given):
        global count
        count += 1
        return function(*given)
    return counted


class TritonPythonModel:
    def initialize(self, args):
        PackedBytes.objects = spied(PackedBytes.objects)
        PackedBytes.pack = classmethod(spied(PackedBytes.pack.__func__))

    def execute(self, requests):
        answer = np.array([count], np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("COUNT", answer)]) for _ in requests]
"""
PASSES_ON = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "INPUT0")
        asked = pb_utils.InferenceRequest(
            model_name="identity", requested_output_names=["OUTPUT0"], inputs=[text])
        return pb_utils.InferenceResponse(asked.exec().output_tensors())
"""
READS = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        texts = [pb_utils.get_input_tensor_by_name(r, "INPUT0").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", t)]) for t in texts]
"""
TEXT = """
backend: "python"
max_batch_size: 8
dynamic_batching {}
input [{ name: "INPUT0" data_type: TYPE_STRING dims: [ 2 ] }]
output [{ name: "OUTPUT0" data_type: TYPE_STRING dims: [ 2 ] }]
parameters { key: "isolation" value { string_value: "%s" } }
"""
COUNT = """
backend: "python"
input [{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }]
output [{ name: "COUNT" data_type: TYPE_INT32 dims: [ 1 ] }]
parameters { key: "isolation" value { string_value: "none" } }
"""
ISOLATED = 'parameters { key: "isolation" value { string_value: "process" } }'
STEPS = ("identity", "isolated", "asks_inside", "asks_outside")
MODULES = {"http": httpclient, "grpc": grpcclient}


def write(repository: Path, name: str, config: str, source: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (repository / name / "1" / "model.py").write_text(source)


def write_chain(repository: Path) -> None:
    names = ["X", *(f"T{number}" for number in range(1, len(STEPS))), "Y"]
    steps = "".join(
        f'step {{ model_name: "{model}" input_map {{ key: "INPUT0" value: "{taken}" }} '
        f'output_map {{ key: "OUTPUT0" value: "{made}" }} }}\n'
        for model, taken, made in zip(STEPS, names[:-1], names[1:], strict=True)
    )
    (repository / "chain" / "1").mkdir(parents=True)
    text = f'platform: "ensemble"\nmax_batch_size: 8\nensemble_scheduling {{ {steps} }}\n'
    (repository / "chain" / "config.pbtxt").write_text(text)


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("repository")
    for name, more in (("identity", "dynamic_batching {}"), ("isolated", ISOLATED)):
        write_identity(repository, name, datatype="TYPE_STRING", dims="2", more=more)
    write(repository, "asks_inside", TEXT % "none", PASSES_ON)
    write(repository, "asks_outside", TEXT % "process", PASSES_ON)
    write(repository, "reads", TEXT % "none", READS)
    write(repository, "spy", COUNT, SPY)
    write_chain(repository)
    return serve(repository)


def num_unpacked(server: RunningServer) -> int:
    """How often texts were unpacked or packed in the server's process."""
    tensor = grpcclient.InferInput("IN", [1], "INT32")
    tensor.set_data_from_numpy(np.zeros(1, np.int32))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        return int(client.infer("spy", [tensor]).as_numpy("COUNT")[0])


def ask(server: RunningServer, protocol: str, model: str, names: tuple[str, str]) -> Any:
    module = MODULES[protocol]
    texts = np.array([["grüße".encode(), b""], [b"\0\xff", b"x" * 50_000]], dtype=object)
    tensor = module.InferInput(names[0], [2, 2], "BYTES")
    tensor.set_data_from_numpy(texts)
    address = server.http if protocol == "http" else server.grpc
    with closing(module.InferenceServerClient(address)) as client:
        answer = client.infer(model, [tensor]).as_numpy(names[1])
    return answer.tolist() == texts.tolist()


@pytest.mark.parametrize("protocol", MODULES)
def test_no_step_of_an_ensemble_unpacks_texts(server: RunningServer, protocol: str) -> None:
    before = num_unpacked(server)
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda _: ask(server, protocol, "chain", ("X", "Y")), range(8))
        assert all(answers)
    assert num_unpacked(server) == before


def test_a_model_that_reads_them_does(server: RunningServer) -> None:
    before = num_unpacked(server)
    assert ask(server, "grpc", "reads", ("INPUT0", "OUTPUT0"))
    assert num_unpacked(server) > before
