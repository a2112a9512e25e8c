"""Work that nobody waits for any more is dropped, in whichever queue it is, and never computed."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_models import write_model, write_repeat
from fault_room import GOOD_DATA, Answer, Room, pending, statistics
from gated_models import Gate, write_gated
from patience import patience
from serving import RunningServer

from trivet.protos import grpc_service_pb2 as pb

Serve = Callable[..., RunningServer]
DEADLINE_S = 0.15
PLAIN = [("INPUT0", "FP32", "4")]
SHARED = """
instance_group [{ kind: KIND_CPU rate_limiter {
  resources [{ name: "seat" global: true count: 1 }]
} }]
"""
CHAIN = """
platform: "ensemble" max_batch_size: 1
input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }]
ensemble_scheduling { step [
  {
    model_name: "slow" model_version: -1
    input_map { key: "INPUT0" value: "INPUT0" } output_map { key: "OUTPUT0" value: "between" }
  },
  {
    model_name: "after" model_version: -1
    input_map { key: "INPUT0" value: "between" } output_map { key: "OUTPUT0" value: "OUTPUT0" }
  }
] }
"""
ASKING = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.ask(request) for request in requests]

    def ask(self, request):
        given = pb_utils.get_input_tensor_by_name(request, "INPUT0")
        first = self.answer("slow", given)
        if request.is_cancelled():
            raise pb_utils.TritonModelException("nobody waits")
        return pb_utils.InferenceResponse(self.answer("after", first[0]))

    def answer(self, model, tensor):
        asked = pb_utils.InferenceRequest(
            model_name=model, requested_output_names=["OUTPUT0"],
            inputs=[pb_utils.Tensor("INPUT0", tensor.as_numpy())])
        response = asked.exec()
        if response.has_error():
            raise pb_utils.TritonModelException(str(response.error()))
        return response.output_tensors()
"""


@dataclass(frozen=True)
class Case:
    """Where a request waits, and who must not compute it."""

    asked: str
    occupied: str
    """What keeps it waiting: another request, to this model; empty: its own first step does."""
    spared: str
    more: str = ""
    """Its further parameters, as JSON."""

    @property
    def begin(self) -> str:
        return self.more and f'{self.more},"sequence_start":true'

    @property
    def begin_and_end(self) -> str:
        return self.begin and f'{self.begin},"sequence_end":true'


CASES = {
    "in a batcher's queue": Case("slow", "slow", "slow"),
    "behind its own sequence": Case("sequence", "sequence", "sequence", '"sequence_id":7'),
    "for a resource of the rate limiter": Case("seated", "seated_too", "seated"),
    "between the steps of an ensemble": Case("chain", "", "after"),
    "for a step of an ensemble": Case("chain", "slow", "slow"),
    "for a model that a model asks": Case("asking", "slow", "after"),
}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    """While it is shut, what keeps others waiting is computed: until they have given up."""
    return Gate(tmp_path_factory.mktemp("gate") / "shut")


@pytest.fixture(scope="module")
def room(serve: Serve, gate: Gate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    models = tmp_path_factory.mktemp("deadlines")
    write_model(models, "good", inputs=PLAIN)
    write_model(models, "after", inputs=PLAIN, max_batch_size=1)
    policy = "dynamic_batching { default_queue_policy { allow_timeout_override: true } }\n"
    for name, more in (
        ("slow", ""), ("sequence", "sequence_batching {}"), ("seated", SHARED),
        ("seated_too", SHARED), ("impatient", policy),
    ):  # fmt: skip
        write_gated(models, name, gate, more=more)
    write_repeat(models)
    (models / "chain" / "1").mkdir(parents=True)
    (models / "chain" / "config.pbtxt").write_text(CHAIN)
    write_asking(models)
    room = Room(serve(models, "--rate-limit=execution_count"), models)
    yield room
    room.assert_unharmed()
    room.assert_settled()
    room.close()


def write_asking(models: Path) -> None:
    (models / "asking" / "1").mkdir(parents=True)
    (models / "asking" / "1" / "model.py").write_text(ASKING)
    (models / "asking" / "config.pbtxt").write_text(
        'backend: "python" max_batch_size: 1\n'
        'input [{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }]\n'
        'output [{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }]\n'
    )


def body(more: str = "") -> bytes:
    given = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": GOOD_DATA}
    parameters = json.loads(f"{{{more}}}")
    return json.dumps({"inputs": [given], "parameters": parameters}).encode()


def ask(room: Room, model: str, more: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return room.post(f"/v2/models/{model}/infer", body(more), named)


def message(model: str, more: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model)
    given = request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    given.contents.fp32_contents.extend(GOOD_DATA)
    for name, value in json.loads(f"{{{more}}}").items():
        kind = "bool_param" if isinstance(value, bool) else "int64_param"
        setattr(request.parameters[name], kind, value)
    return request


def by_header(room: Room, case: Case, more: str) -> None:
    answer = ask(room, case.asked, more, x_request_timeout=f"{DEADLINE_S}")
    assert answer.status == 504, answer
    assert answer.error == f"the request was not answered within {DEADLINE_S} s (x-request-timeout)"


def by_grpc_deadline(room: Room, case: Case, more: str) -> None:
    sent = message(case.asked, more).SerializeToString()
    code, _ = room.refusal("ModelInfer", sent, timeout_s=DEADLINE_S)
    assert code == "DEADLINE_EXCEEDED"


def count(room: Room, model: str) -> int:
    return int(statistics(room.server, model)["execution_count"])


@pytest.mark.parametrize("give_up", [by_header, by_grpc_deadline])
@pytest.mark.parametrize("where", CASES)
def test_a_request_whose_deadline_passes_while_it_waits_is_never_computed(
    room: Room, gate: Gate, where: str, give_up: Callable[[Room, Case, str], None]
) -> None:
    case = CASES[where]
    before = count(room, case.spared)
    with ThreadPoolExecutor(1) as pool, gate.shut():
        kept = pool.submit(ask, room, case.occupied, case.begin) if case.occupied else None
        if kept is not None:
            room.server.wait_until(gate.is_reached, "computed the other one")
        give_up(room, case, case.more)
        gate.open()
        assert kept is None or kept.result().status == 200
    # What comes later is computed behind all that came before.
    last = case.occupied or "slow"
    assert ask(room, last, case.begin_and_end).status == 200
    assert count(room, case.spared) == before + [case.occupied, last].count(case.spared)
    assert pending(room.server) == 0


def test_the_timeout_parameter_drops_a_request_from_its_queue(room: Room, gate: Gate) -> None:
    before = count(room, "impatient")
    with ThreadPoolExecutor(1) as pool, gate.shut():
        kept = pool.submit(ask, room, "impatient")
        room.server.wait_until(gate.is_reached, "computed the other one")
        answer = ask(room, "impatient", f'"timeout":{int(DEADLINE_S * 1e6)}')
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "Request timeout expired" in answer.error
        gate.open()
        assert kept.result().status == 200
    assert count(room, "impatient") == before + 1


@pytest.mark.parametrize("waits", [True, False])
def test_it_is_answered_at_its_deadline_and_not_when_its_turn_comes(
    room: Room, gate: Gate, waits: bool
) -> None:
    """One that is being computed, too: whatever is, is so until the gate opens."""
    with ThreadPoolExecutor(1) as pool, gate.shut():
        kept = pool.submit(ask, room, "slow") if waits else None
        if kept is not None:
            room.server.wait_until(gate.is_reached, "computed the other one")
        assert ask(room, "slow", x_request_timeout="150ms").status == 504
        gate.open()
        assert kept is None or kept.result().status == 200


def test_a_stream_that_outlasts_its_deadline_is_broken_off(room: Room) -> None:
    document = {"IN": [1, 2], "DELAY": [0, int(patience(2) * 1000)]}
    with room.connect() as connection:
        data = json.dumps(document).encode()
        given = (patience(0.5), len(data), data)
        connection.sendall(
            b"POST /v2/models/decoupled/generate_stream HTTP/1.1\r\nHost: a\r\n"
            b"x-request-timeout: %g\r\nContent-Length: %d\r\n\r\n%b" % given
        )
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 200")
    assert b'"IDX":0' in received
    assert b'"IDX":1' not in received
    assert not received.endswith(b"0\r\n\r\n"), "it looks complete"


@pytest.mark.parametrize("value", ["0", "-1", "soon", "1e3", "", "1m", "1.5, 2", "nan"])
def test_a_timeout_that_is_none_is_refused_with_its_form(room: Room, value: str) -> None:
    answer = ask(room, "good", x_request_timeout=value)
    assert answer.status == 400
    assert "x-request-timeout must be one number of seconds above 0, such as 1.5" in answer.error


@pytest.mark.parametrize("value", ["20", "20.5", "20s", "20000ms"])
def test_a_request_within_its_time_is_answered(room: Room, value: str) -> None:
    answer = ask(room, "after", x_request_timeout=value)
    assert answer.status == 200
    assert json.loads(answer.body)["outputs"][0]["data"] == GOOD_DATA
