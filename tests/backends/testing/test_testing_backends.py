"""The small test backends: what they answer, how long they take and how they fail when asked."""

import threading
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from patience import patience

from trivet.backends.api import (
    BackendFailed,
    Batch,
    CheckedRequest,
    Instance,
    InvalidConfig,
    ModelFiles,
    Parameters,
    Placement,
    ServingError,
    Tensor,
)
from trivet.backends.registry import open_backend
from trivet.protos.model_config_pb2 import ModelConfig

FILES = ModelFiles(Path("/nowhere/m"), 1)

IDENTITY = """
name: "m" backend: "identity" max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_FP32 dims: [-1] }
input { name: "INPUT1" data_type: TYPE_STRING dims: [-1] }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [-1] }
output { name: "OUTPUT1" data_type: TYPE_STRING dims: [-1] }
"""
REPEAT = """
name: "m" backend: "repeat" model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [-1] }
input { name: "DELAY" data_type: TYPE_UINT32 dims: [-1] }
input { name: "WAIT" data_type: TYPE_UINT32 dims: [1] }
output { name: "OUT" data_type: TYPE_INT32 dims: [1] }
output { name: "IDX" data_type: TYPE_UINT32 dims: [1] }
"""
SQUARE = """
name: "m" backend: "square" model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [1] }
output { name: "OUT" data_type: TYPE_INT32 dims: [1] }
"""


class Sender:
    """Keeps what one request was sent; `ended` is set by its end."""

    def __init__(self) -> None:
        self.responses: list[dict[str, list[int]]] = []
        self.error: ServingError | None = None
        self.ended = threading.Event()

    def send(
        self, outputs: list[Tensor], *, final: bool = False, parameters: Parameters | None = None
    ) -> None:
        self.responses.append({t.name: t.numpy().tolist() for t in outputs})
        if final:
            self.ended.set()

    def finish(self) -> None:
        self.ended.set()

    def fail(self, error: ServingError) -> None:
        self.error = error
        self.ended.set()


def open_instance(text: str, parameters: str = "", name: str = "m_0_0") -> Instance:
    config = ModelConfig()
    text_format.Parse(text + parameters, config)
    backend = open_backend(config.backend)
    return backend.open(backend.complete(config, FILES), FILES, Placement(name, "KIND_CPU", 0, 1))


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def make_request(
    inputs: dict[str, np.ndarray], outputs: tuple[str, ...] = (), size: int = 1
) -> CheckedRequest:
    tensors = {name: Tensor.of(name, array) for name, array in inputs.items()}
    return CheckedRequest("m", 1, "", tensors, outputs, batch_size=size)


def stream(instance: Instance, inputs: dict[str, np.ndarray]) -> Sender:
    sender = Sender()
    instance.execute(Batch([make_request(inputs)], batching=False, senders=[sender]))
    assert sender.ended.wait(patience())
    return sender


def test_identity_returns_the_memory_it_was_given() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    batch = Batch([make_request({"INPUT0": values}, size=2)], batching=True)

    open_instance(IDENTITY).execute(batch)

    (output,) = batch.outputs[0]
    assert output.name == "OUTPUT0"
    assert np.shares_memory(output.numpy(), values)


def test_identity_leaves_packed_strings_packed() -> None:
    text = Tensor.of("INPUT1", np.array([[b"a", b"\0\xff"]], dtype=object))
    packed = Tensor(text.name, text.datatype, text.shape, text.packed())
    batch = Batch([CheckedRequest("m", 1, "", {"INPUT1": packed})], batching=True)

    open_instance(IDENTITY).execute(batch)

    assert batch.outputs[0][0].data is packed.data


def test_identity_answers_each_request_of_a_batch_with_its_own_rows_and_wishes() -> None:
    first = np.zeros((1, 2), np.float32)
    second = np.ones((3, 2), np.float32)
    strings = np.array([["x"]] * 3, dtype=object)
    batch = Batch(
        [
            make_request({"INPUT0": first}),
            make_request({"INPUT0": second, "INPUT1": strings}, ("OUTPUT1",), size=3),
        ],
        batching=True,
    )

    open_instance(IDENTITY).execute(batch)

    assert [t.name for t in batch.outputs[0]] == ["OUTPUT0"]
    assert [t.name for t in batch.outputs[1]] == ["OUTPUT1"]
    assert np.shares_memory(batch.outputs[0][0].numpy(), first)


@pytest.mark.parametrize(("name", "least_ms"), [("m_0_0", 20), ("m_0_3", 60)])
def test_delay_counts_as_computing_and_grows_with_the_instance(name: str, least_ms: int) -> None:
    wishes = parameter("execute_delay_ms", "20") + parameter("instance_wise_delay_multiplier", "1")
    instance = open_instance(IDENTITY, wishes, name)
    batch = Batch([make_request({"INPUT0": np.zeros((1, 1), np.float32)})], batching=True)

    instance.execute(batch)

    assert batch.computed_ns - batch.gathered_ns >= least_ms * 1_000_000


def test_closing_ends_a_delay() -> None:
    instance = open_instance(IDENTITY, parameter("execute_delay_ms", "3600000"))
    batch = Batch([make_request({"INPUT0": np.zeros((1, 1), np.float32)})], batching=True)
    thread = threading.Thread(target=instance.execute, args=(batch,))
    thread.start()

    instance.close()

    thread.join(patience())
    assert not thread.is_alive()
    assert not instance.is_ready()


def test_identity_fails_with_the_text_it_was_given() -> None:
    instance = open_instance(IDENTITY, parameter("fail_with", "out of ink"))

    with pytest.raises(BackendFailed, match=r"^out of ink$"):
        instance.execute(Batch([make_request({})], batching=True))


def test_identity_fails_with_a_foreign_exception_when_asked() -> None:
    instance = open_instance(IDENTITY, parameter("fail_with", "exception"))

    with pytest.raises(RuntimeError, match="swordfish"):
        instance.execute(Batch([make_request({})], batching=True))


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_delay_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidConfig, match=f"'execute_delay_ms' must be a number.*'{value}'"):
        open_instance(IDENTITY, parameter("execute_delay_ms", value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "m" backend: "identity"', "must list its inputs and outputs"),
        (IDENTITY + 'output { name: "X" data_type: TYPE_FP32 dims: [1] }', "'X' has no input"),
        (
            IDENTITY.replace('OUTPUT0" data_type: TYPE_FP32', 'OUTPUT0" data_type: TYPE_INT8'),
            "'OUTPUT0' must have the data_type of input 'INPUT0'",
        ),
        (SQUARE.replace("decoupled: true", ""), "decoupled: true"),
        (REPEAT.replace("decoupled: true", ""), "decoupled: true"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        open_instance(text)


def test_repeat_sends_a_response_per_element() -> None:
    inputs = {
        "IN": np.array([4, 5, 6], np.int32),
        "DELAY": np.array([1, 0, 1], np.uint32),
        "WAIT": np.array([0], np.uint32),
    }

    sender = stream(open_instance(REPEAT), inputs)

    assert sender.responses == [
        {"OUT": [4], "IDX": [0]},
        {"OUT": [5], "IDX": [1]},
        {"OUT": [6], "IDX": [2]},
    ]


def test_repeat_of_nothing_ends_without_a_response() -> None:
    sender = stream(open_instance(REPEAT), {"IN": np.empty(0, np.int32)})

    assert sender.responses == []
    assert sender.error is None


def test_repeat_stops_for_a_client_that_went_away() -> None:
    request = make_request({"IN": np.arange(5, dtype=np.int32)})
    request.cancel.cancel()
    sender = Sender()

    open_instance(REPEAT).execute(Batch([request], batching=False, senders=[sender]))

    assert sender.ended.wait(patience())
    assert sender.responses == []


def test_square_sends_n_responses_of_n() -> None:
    sender = stream(open_instance(SQUARE), {"IN": np.array([3], np.int32)})

    assert sender.responses == [{"OUT": [3]}] * 3


def test_a_stream_that_breaks_ends_its_request_with_a_fixed_text() -> None:
    sender = stream(open_instance(SQUARE), {"WRONG": np.array([3], np.int32)})

    assert isinstance(sender.error, BackendFailed)
    assert "WRONG" not in sender.error.message


def test_closing_ends_a_running_stream() -> None:
    instance = open_instance(REPEAT)
    inputs = {"IN": np.arange(2, dtype=np.int32), "DELAY": np.full(2, 3_600_000, np.uint32)}
    sender = Sender()
    instance.execute(Batch([make_request(inputs)], batching=False, senders=[sender]))

    instance.close()

    assert sender.ended.is_set()
