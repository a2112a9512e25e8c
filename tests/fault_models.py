"""The models that the fault tests send bad input to, written as a repository."""

from pathlib import Path

from patience import patience

CRASH_MODEL = """
import ctypes
import os
import signal
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        while os.path.exists(args["model_repository"] + "/hold"):
            time.sleep(0.01)

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        command = pb_utils.get_input_tensor_by_name(request, "COMMAND").as_numpy()
        word, _, argument = command.reshape(-1)[0].decode().partition(" ")
        if word == "exit":
            os._exit(3)
        if word == "spin":
            while True:
                pass
        if word == "clutch":  # holds the GIL: no other thread of the process runs
            ctypes.PyDLL(None).sleep(600)
        if word == "eat":
            eaten = bytearray(int(argument))
            eaten[::4096] = b"x" * len(range(0, len(eaten), 4096))
        if word == "segfault":
            ctypes.string_at(0)
        if word == "raise":
            raise RuntimeError("token=swordfish")
        if word == "sleep":
            time.sleep(float(argument))
        if word == "hang":
            if argument:
                open(argument + ".started", "w").close()
            while True:
                time.sleep(1)
        if word == "watch":
            self._watch(request, argument)
        text = np.array([[str(os.getpid()).encode()]], dtype=object).reshape(command.shape)
        return pb_utils.InferenceResponse([pb_utils.Tensor("PID", text)])

    def _watch(self, request, path):
        open(path + ".started", "w").close()
        deadline = time.monotonic() + 600
        while not request.is_cancelled() and time.monotonic() < deadline:
            time.sleep(0.005)
        if request.is_cancelled():
            open(path + ".cancelled", "w").close()
"""

REPEAT = """
backend: "repeat"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] optional: true },
  { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] optional: true }
]
output [
  { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] }
]
"""

DATATYPES = ("BOOL", "INT8", "UINT8", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64")


def parameter(name: str, value: object) -> str:
    """A config parameter in text format."""
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


def write_row_models(repository: Path) -> Path:
    """Every fixture model that the tables of bad input name; returns the repository."""
    repository.mkdir(exist_ok=True)
    write_model(repository, "good", inputs=[("INPUT0", "FP32", "4")])
    pair = [("INPUT0", "FP32", "16"), ("INPUT1", "FP32", "16")]
    write_model(repository, "simple", max_batch_size=8, inputs=pair)
    write_model(repository, "nobatch", inputs=pair)
    write_model(repository, "ident_str", inputs=[("INPUT0", "BYTES", "-1")])
    write_model(repository, "ident_2d", inputs=[("INPUT0", "FP32", "-1, -1")])
    write_model(repository, "ident_raw", inputs=[("INPUT0", "FP32", "16")])
    required = [(f"INPUT{index}", "FP32", "1") for index in range(3)]
    optional = ("INPUT3", "FP32", "1")
    write_model(repository, "opt", inputs=required, optional=[optional])
    for datatype in DATATYPES:
        write_model(repository, f"ident_{datatype.lower()}", inputs=[("INPUT0", datatype, "-1")])
    write_failing_models(repository)
    write_slow_models(repository)
    write_repeat(repository)
    write_crash(repository)
    return repository


def write_failing_models(repository: Path) -> None:
    """One that fails with a foreign exception, one that fails with words for its client."""
    plain = [("INPUT0", "FP32", "4")]
    secret = parameter("fail_with", "exception")
    write_model(repository, "failing", inputs=plain, more=secret)
    write_model(repository, "refusing", inputs=plain, more=parameter("fail_with", "no more ink"))


def write_slow_models(repository: Path, delay_ms: int | None = None) -> None:
    """`slow` computes for a while, `narrow` has room for one waiting request, `hasty` lets none
    wait for long."""
    delay_ms = int(patience(0.2) * 1000) if delay_ms is None else delay_ms
    plain = [("INPUT0", "FP32", "4")]
    delay = parameter("execute_delay_ms", delay_ms)
    policies = {
        "slow": "",
        "narrow": "max_queue_size: 1",
        "hasty": f"default_timeout_microseconds: {500 * delay_ms}",
    }
    for name, policy in policies.items():
        batching = f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}\n"
        write_model(repository, name, max_batch_size=1, inputs=plain, more=delay + batching)


def write_repeat(repository: Path) -> None:
    """`decoupled`: one response for each element of IN."""
    folder = repository / "decoupled"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(REPEAT)


def write_held(repository: Path) -> Path:
    """`held`: the same, but it goes on loading until the returned file is removed."""
    write_crash(repository, "held")
    hold = repository / "held" / "hold"
    hold.touch()
    return hold


def write_crash(repository: Path, name: str = "crash", more: str = "") -> None:
    """A Python model that ends its process when told to; it goes on loading while there is a file
    named `hold` in its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(CRASH_MODEL)
    (folder / "config.pbtxt").write_text(
        'backend: "python"\nmax_batch_size: 0\n'
        'input [ { name: "COMMAND" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
        'output [ { name: "PID" data_type: TYPE_STRING dims: [ 1 ] } ]\n' + more
    )


Input = tuple[str, str, str]
"""Name, datatype and dims of an input."""


def write_model(
    repository: Path,
    name: str,
    *,
    inputs: list[Input],
    optional: list[Input] | None = None,
    max_batch_size: int = 0,
    more: str = "",
) -> Path:
    """An identity model of any number of inputs, each returned as OUTPUT0, OUTPUT1 and so on;
    returns its folder."""
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    tensors = [_tensor("input", *each) for each in inputs]
    tensors += [_tensor("input", *each, " optional: true") for each in optional or []]
    outputs = [
        _tensor("output", f"OUTPUT{index}", datatype, dims)
        for index, (_, datatype, dims) in enumerate(inputs)
    ]
    head = f'backend: "identity"\nmax_batch_size: {max_batch_size}\n'
    (folder / "config.pbtxt").write_text(head + "".join(tensors + outputs) + more)
    return folder


def _tensor(role: str, name: str, datatype: str, dims: str, more: str = "") -> str:
    datatype = "STRING" if datatype == "BYTES" else datatype
    return f'{role} [ {{ name: "{name}" data_type: TYPE_{datatype} dims: [ {dims} ]{more} }} ]\n'
