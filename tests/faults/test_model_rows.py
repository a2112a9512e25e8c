"""Rows of wrong models and wrong model files that need a backend or an ensemble, on a server of
their own. Each backend's own tests have the exhaustive lists; here each kind goes the whole way."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
from fault_models import write_failing_models, write_model, write_slow_models
from fault_room import GOOD_DATA, MIB, Room, json_input, pending, read
from hostile_files import CONFIG, GGUF, SAFETENSORS
from made_environments import archive_of, make_venv, member, pack
from onnx import TensorProto, helper
from scripted_llama import byte_tokenizer
from serving import RunningServer
from sklearn.preprocessing import FunctionTransformer

from trivet.protos import grpc_service_pb2 as pb

MAX_GROWTH_BYTES = 512 * MIB
"""PyTorch and ONNX Runtime are imported on the way and stay."""
ODD = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        word = pb_utils.get_input_tensor_by_name(request, "COMMAND").as_numpy()[0, 0]
        if word == b"object":
            return object()
        rows = {b"text": [["\\ud83d"]]}.get(word, [[b"fine"]])
        output = pb_utils.Tensor("OUT", np.array(rows, dtype=object))
        return pb_utils.InferenceResponse([output])
"""
ODD_CONFIG = """
backend: "python"
max_batch_size: 4
input [ { name: "COMMAND" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
"""
CHAIN = """
platform: "ensemble"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_{type} dims: [ {dims} ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ 4 ] }} ]
ensemble_scheduling {{ step [ {{
  model_name: "{model}" model_version: -1
  input_map {{ key: "INPUT0" value: "{source}" }}
  output_map {{ key: "OUTPUT0" value: "Y" }}
}} ] }}
"""


def chain(model: str, **changes: Any) -> str:
    """The config of an ensemble of one step."""
    usual = {"batch": 0, "type": "FP32", "dims": 4, "source": "X"}
    return CHAIN.format(model=model, **usual | changes)


class Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def write(folder: Path, config: str, files: dict[str, bytes | str] | None = None) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    for name, content in (files or {}).items():
        (folder / "1" / name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_bounded(folder: Path) -> None:
    """y = 2 x of 3 to 8 rows."""
    (folder / "1").mkdir(parents=True)
    places = ({0: torch.export.Dim("b", min=3, max=8)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(Twice(), (torch.ones(4, 6),), dynamic_shapes=places)
        torch.export.save(exported, folder / "1" / "model.pt2")


def onnx_bytes(node: Any, shape: list[str | int], *weights: TensorProto) -> bytes:
    """A graph of one node from x to y."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y], weights)
    opsets = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return made


@pytest.fixture(scope="module")
def room(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    repository = tmp_path_factory.mktemp("wrong") / "models"
    plain = [("INPUT0", "FP32", "4")]
    write_model(repository, "good", inputs=plain)
    write_slow_models(repository)
    write_failing_models(repository)
    write(repository / "odd", ODD_CONFIG, {"model.py": ODD})
    write(repository / "broken", chain("failing"))
    write(repository / "full", chain("narrow", batch=1))
    write_bounded(repository / "bounded")
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    write(repository / "doubled", "max_batch_size: 4", {"model.onnx": onnx_bytes(node, ["n", 4])})
    room = Room(serve(repository, "--model-control-mode=explicit", "--load-model=*"), repository)
    yield room
    room.assert_unharmed()
    room.assert_settled(MAX_GROWTH_BYTES)
    room.close()
    assert room.server.stop() == 0


@pytest.fixture(autouse=True)
def _unharmed(room: Room) -> Iterator[None]:
    yield
    room.assert_unharmed()


def tensor_body(name: str, data: list[Any], *shape: int, datatype: str = "FP32") -> bytes:
    given = json_input(name, shape=list(shape), data=data, datatype=datatype)
    return json.dumps({"inputs": [given]}).encode()


def message(model: str, name: str, raw: bytes, *shape: int, datatype: str = "FP32") -> bytes:
    made = pb.ModelInferRequest(model_name=model)
    made.inputs.add(name=name, datatype=datatype, shape=shape)
    made.raw_input_contents.append(raw)
    return made.SerializeToString()


GOOD_RAW = np.array(GOOD_DATA, np.float32).tobytes()


@pytest.mark.rows("V57a")
def test_v57_a_step_that_fails_fails_the_ensemble(room: Room) -> None:
    told = room.post("/v2/models/broken/infer", tensor_body("X", GOOD_DATA, 4)).error
    assert "in ensemble 'broken', model 'failing' failed while executing" in told
    room.refusal("ModelInfer", message("broken", "X", GOOD_RAW, 4))


@pytest.mark.rows("V57b")
def test_v57_a_step_that_is_full_fails_the_ensemble(room: Room) -> None:
    """`narrow` computes one and lets one wait."""
    connections = [room.http() for _ in range(4)]
    for connection in connections:
        connection.request("POST", "/v2/models/full/infer", tensor_body("X", GOOD_DATA, 1, 4))
    room.server.wait_until(lambda: pending(room.server) > 0, "queued")
    room.refusal("ModelInfer", message("full", "X", GOOD_RAW, 1, 4))
    answers = [read(connection) for connection in connections]
    for connection in connections:
        connection.close()
    told = next(answer for answer in answers if answer.status != 200).error
    assert "in ensemble 'full', " in told
    assert "Exceeds maximum queue size" in told


def ask_odd(room: Room, word: str) -> str:
    """The text of the error over HTTP, and the same asked over gRPC."""
    raw = len(word).to_bytes(4, "little") + word.encode()
    room.refusal("ModelInfer", message("odd", "COMMAND", raw, 1, 1, datatype="BYTES"))
    body = tensor_body("COMMAND", [word], 1, 1, datatype="BYTES")
    error = room.post("/v2/models/odd/infer", body).error
    fine = room.post(
        "/v2/models/odd/infer", tensor_body("COMMAND", ["fine"], 1, 1, datatype="BYTES")
    )
    assert json.loads(fine.body)["outputs"][0]["data"] == ["fine"]
    return error


@pytest.mark.rows("V61")
@pytest.mark.parametrize(
    ("word", "text"),
    [("text", "which UTF-8 cannot encode"), ("object", "returned object, not InferenceResponse")],
)
def test_v61_what_cannot_be_sent_fails_its_request(room: Room, word: str, text: str) -> None:
    assert text in ask_odd(room, word)
    room.assert_settled(MAX_GROWTH_BYTES)
    assert room.baseline.children == type(room.baseline).of(room.pid).children


@pytest.mark.rows("V62")
def test_v62_other_rows_than_the_batch_s_fail_it(room: Room) -> None:
    text = "gave output 'y' of shape [2, 4] for a batch of 1"
    assert text in room.post("/v2/models/doubled/infer", tensor_body("x", GOOD_DATA, 1, 4)).error
    assert text in room.refusal("ModelInfer", message("doubled", "x", GOOD_RAW, 1, 4))[1]


@pytest.mark.rows("V63")
@pytest.mark.parametrize("count", [2, 9])
def test_v63_a_shape_outside_the_program_s_bounds_is_refused(room: Room, count: int) -> None:
    body = tensor_body("x", [1.0] * 6 * count, count, 6)
    assert "takes 3 to 8" in room.post("/v2/models/bounded/infer", body).error
    raw = np.ones((count, 6), np.float32).tobytes()
    assert "takes 3 to 8" in room.refusal("ModelInfer", message("bounded", "x", raw, count, 6))[1]


# -- loads -----------------------------------------------------------------------------------------


def loaded(room: Room, name: str, **parameters: Any) -> str:
    """The error of a load; empty if there is none."""
    body = json.dumps({"parameters": parameters}).encode()
    answer = room.post(f"/v2/repository/models/{name}/load", body)
    return "" if answer.status == 200 else answer.error


@pytest.fixture
def wrong(room: Room) -> Iterator[Path]:
    """The folder of a model that is not there yet."""
    folder = room.repository / "wrong"
    yield folder
    shutil.rmtree(folder)


@pytest.mark.rows("R10")
@pytest.mark.parametrize("claim", GGUF)
def test_r10_gguf_that_claims_what_cannot_be(room: Room, wrong: Path, claim: str) -> None:
    write(wrong, 'backend: "llm"', {"model.gguf": GGUF[claim]})
    with room.memory_bound(512 * MIB):
        assert "'model.gguf' is no readable GGUF file" in loaded(room, "wrong")


@pytest.mark.rows("R11")
@pytest.mark.parametrize(
    "claim",
    [
        "overlapping",
        # Each is found by an engine's process, which takes seconds to begin.
        *(
            pytest.param(claim, marks=pytest.mark.slow)
            for claim in ("a header of 2^40", "a name twice")
        ),
    ],
)
def test_r11_safetensors_that_contradict_themselves(room: Room, wrong: Path, claim: str) -> None:
    files: dict[str, bytes | str] = {
        "config.json": json.dumps(CONFIG),
        "tokenizer.json": byte_tokenizer().to_str(),
        "model.safetensors": SAFETENSORS[claim],
    }
    write(wrong, 'backend: "llm"', files)
    assert "'model.safetensors' cannot be read" in loaded(room, "wrong")


@pytest.mark.rows("R12")
@pytest.mark.parametrize(
    ("location", "text"),
    [("../../good/config.pbtxt", "outside the model's folder"), ("weights.bin", "is missing")],
)
def test_r12_onnx_weights_that_lie_elsewhere(
    room: Room, wrong: Path, location: str, text: str
) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    content = onnx_bytes(helper.make_node("Add", ["x", "w"], ["y"]), [4], weight)
    write(wrong, 'backend: "onnxruntime"', {"model.onnx": content})
    assert text in loaded(room, "wrong")


@pytest.mark.rows("R16")
@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"model": "nobody"}, "step 0 (model 'nobody')"),
        ({"model": "odd"}, "step 0 (model 'odd')"),
        ({"model": "wrong"}, "cannot be a step of itself"),
        ({"model": "good", "source": "T"}, "'X' of the ensemble is not used"),
        ({"model": "good", "type": "INT32"}, "INT32"),
        ({"model": "good", "dims": 5}, "[5]"),
    ],
    ids=str,
)
def test_r16_an_ensemble_that_does_not_fit(
    room: Room, wrong: Path, made: dict[str, Any], text: str
) -> None:
    write(wrong, chain(**made))
    told = loaded(room, "wrong")
    assert text in told
    assert "wrong/config.pbtxt: " in told


@pytest.mark.rows("R16")
def test_r16_ensembles_in_a_circle(room: Room, wrong: Path) -> None:
    write(wrong, chain("other"))
    other = room.repository / "other"
    write(other, chain("wrong"))
    assert "wrong" in loaded(room, "wrong")
    shutil.rmtree(other)


@pytest.mark.rows("R22a")
def test_r22_unload_of_what_is_not_there_does_nothing(room: Room) -> None:
    before = room.server.index()
    room.post("/v2/repository/models/nobody/unload", b"{}")
    assert room.server.index() == before


@pytest.mark.rows("R22b")
def test_r22_unload_of_what_is_in_use_waits_for_its_requests(room: Room) -> None:
    connection = room.http()
    connection.request("POST", "/v2/models/slow/infer", tensor_body("INPUT0", GOOD_DATA, 1, 4))
    room.assert_unharmed()  # answered by the same loop, so the request before it is with its model
    assert room.post("/v2/repository/models/slow/unload", b"{}").status == 200
    assert read(connection).status == 200
    connection.close()
    assert loaded(room, "slow") == ""


@pytest.mark.rows("R22c")
def test_r22_unload_of_a_step_makes_its_ensemble_unready(room: Room) -> None:
    assert room.post("/v2/repository/models/narrow/unload", b"{}").status == 200
    room.server.wait_until(lambda: "narrow" in reason(room, "full"), "told why")
    assert loaded(room, "narrow") == ""
    room.server.wait_until(lambda: reason(room, "full") == "", "ready again")


def reason(room: Room, name: str) -> str:
    return room.server.index()[name, "1"].get("reason", "")


def doubled(values: Any) -> Any:
    return values * 2


CODE = "flavors: {python_function: {loader_module: wolf}}"


@pytest.mark.rows("R28", "R29", "R30", "R31")
@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        pytest.param("saved_model.pb", b"\x0a\xff", "saved_model.pb", id="R28"),
        pytest.param("model.ubj", b"{L\0", "'model.ubj' could not be read by XGBoost", id="R29"),
        pytest.param("MLmodel", CODE, "it names loader_module 'wolf'", id="R30"),
        pytest.param(
            "model.skops",
            skops.io.dumps(FunctionTransformer(doubled)),
            "not known to be harmless",
            id="R31",
        ),
    ],
)
def test_r28_files_of_other_frameworks(
    room: Room, wrong: Path, name: str, content: bytes | str, text: str
) -> None:
    write(wrong, "", {name: content})
    assert text in loaded(room, "wrong")
    room.assert_unharmed()


PACKED = """
backend: "python"
parameters { key: "EXECUTION_ENV_PATH" value { string_value: "1/env.tar.gz" } }
"""
WRONG_ARCHIVES: dict[str, tuple[Callable[[Path], object], str]] = {
    "leads out": (
        lambda path: archive_of(path, member("../../../evil", content=b"x")),
        "'../../../evil' leads out of it",
    ),
    "none": (lambda path: path.write_text("<html>"), "it is no tar archive"),
    "cut off": (
        lambda path: path.write_bytes(
            archive_of(path, member("a", content=os.urandom(1 << 17))).read_bytes()[: 1 << 16]
        ),
        "it is damaged",
    ),
    "another Python": (
        lambda path: pack(make_venv(path.parent / "made", "3.8"), path),
        "is a virtual environment of Python 3.8",
    ),
    "not there": (lambda path: None, "is not there"),
}


@pytest.mark.rows("R32")
@pytest.mark.parametrize("case", WRONG_ARCHIVES)
def test_r32_archives_of_environments(room: Room, wrong: Path, case: str) -> None:
    make, text = WRONG_ARCHIVES[case]
    write(wrong, PACKED, {"model.py": ""})
    make(wrong / "1" / "env.tar.gz")
    assert text in loaded(room, "wrong")
    room.assert_unharmed()
    assert list(room.repository.parent.rglob("evil")) == []


def requiring(room: Room, wrong: Path, line: str) -> str:
    write(wrong, 'backend: "python"', {"model.py": "", "requirements.txt": line})
    return loaded(room, "wrong")


@pytest.mark.rows("R33a")
def test_r33_packages_that_are_not_there(room: Room, wrong: Path) -> None:
    assert "'no-such-package==1' (not installed)" in requiring(room, wrong, "no-such-package==1")
    room.assert_unharmed()


@pytest.mark.rows("R33b")
@pytest.mark.parametrize(
    "line", ["--index-url http://x/", "x @ http://x/x.whl", "./x.whl", "-r more.txt"]
)
def test_r33_places_that_they_come_from(room: Room, wrong: Path, line: str) -> None:
    assert "whoever runs the server" in requiring(room, wrong, f"{line}\nno-such-package")
    room.assert_unharmed()


LEVELS = "dynamic_batching { priority_levels: 18446744073709551615 default_priority_level: 7 }\n"
SEQUENCES = (
    "sequence_batching { oldest { max_candidate_sequences: 2147483647 }\n"
    '  control_input [ { name: "START" control { kind: CONTROL_SEQUENCE_START'
    " fp32_false_true: [ 0, 1 ] } } ] }\n"
)
WARMUP = (
    'model_warmup [ { name: "w" batch_size: 1 inputs { key: "INPUT0" value {'
    " data_type: TYPE_FP32 dims: [ 100000, 100000 ] zero_data: true } } } ]\n"
)


@pytest.mark.rows("R25a")
@pytest.mark.parametrize("more", [LEVELS, SEQUENCES], ids=["levels", "sequences"])
def test_r25_numbers_of_places_cost_nothing_before_they_are_used(
    room: Room, wrong: Path, more: str
) -> None:
    write_model(
        room.repository, "wrong", inputs=[("INPUT0", "FP32", "4")], max_batch_size=4, more=more
    )
    with room.memory_bound(64 * MIB):
        assert loaded(room, "wrong") == ""
        body = json.loads(tensor_body("INPUT0", GOOD_DATA, 1, 4))
        flags = {"sequence_id": 5, "sequence_start": True, "sequence_end": True}
        body["parameters"] = flags if "sequence" in more else {"priority": 2**62}
        assert room.post("/v2/models/wrong/infer", json.dumps(body).encode()).status == 200
    assert room.post("/v2/repository/models/wrong/unload", b"{}").status == 200


@pytest.mark.rows("R25b")
def test_r25_warm_up_of_more_than_fits_is_refused(room: Room, wrong: Path) -> None:
    write_model(
        room.repository,
        "wrong",
        inputs=[("INPUT0", "FP32", "-1, -1")],
        max_batch_size=4,
        more=WARMUP,
    )
    with room.memory_bound(64 * MIB):
        assert "warmup" in loaded(room, "wrong").lower()


@pytest.mark.rows("R27")
def test_r27_a_config_that_the_program_s_bounds_contradict(room: Room) -> None:
    override = json.dumps({"backend": "pytorch", "max_batch_size": 8})
    assert "3 to 8" in loaded(room, "bounded", config=override)
