"""ONNX models end to end: completion of configs, opening, sharing of sessions, executing."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper

from trivet.backends.api import (
    Batch,
    DataType,
    InferRequest,
    Instance,
    InvalidConfig,
    InvalidRequest,
    ModelFiles,
    Placement,
    ServingError,
    Tensor,
)
from trivet.backends.onnxruntime import options, sessions
from trivet.backends.onnxruntime.backend import OnnxRuntimeBackend
from trivet.protos import model_config_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig

Dims = Sequence[int | str | None]


def graph_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17)]
    serialised: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return serialised


def identity_model(element: int = TensorProto.FLOAT, dims: Dims = ("batch", 4)) -> bytes:
    """y = x."""
    return graph_model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", element, dims)],
        [helper.make_tensor_value_info("y", element, dims)],
    )


def add_sub_model(dims: Dims = ("batch", 4)) -> bytes:
    """sum = a + b, difference = a - b."""
    names = ("a", "b", "sum", "difference")
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n in names}
    return graph_model(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ],
        [values["a"], values["b"]],
        [values["sum"], values["difference"]],
    )


@dataclass
class Home:
    """The folder of model 'm' and a backend of its own."""

    model_dir: Path
    backend: OnnxRuntimeBackend = field(default_factory=OnnxRuntimeBackend)

    @property
    def files(self) -> ModelFiles:
        return ModelFiles(self.model_dir, 1)

    def put(self, content: bytes, name: str = "model.onnx") -> None:
        path = self.files.version_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def complete(self, text: str = "") -> ModelConfig:
        config = text_format.Parse(text, ModelConfig(name="m", backend="onnxruntime"))
        return self.backend.complete(config, self.files)

    def open(self, text: str = "", cpu_threads: int = 1) -> Instance:
        placement = Placement("m_0_0", "KIND_CPU", 0, cpu_threads)
        return self.backend.open(self.complete(text), self.files, placement)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m")


def make_request(
    inputs: dict[str, np.ndarray], outputs: tuple[str, ...] = (), *, batching: bool = True
) -> InferRequest:
    tensors = {name: Tensor.of(name, array) for name, array in inputs.items()}
    first = next(iter(inputs.values()))
    size = first.shape[0] if batching and first.ndim else 1
    return InferRequest("m", None, "", tensors, outputs, batch_size=size)


def run_batch(instance: Instance, *requests: InferRequest, batching: bool = True) -> Batch:
    batch = Batch(requests, batching=batching)
    instance.execute(batch)
    return batch


def run_one(
    instance: Instance, *, batching: bool = True, **inputs: np.ndarray
) -> dict[str, np.ndarray]:
    batch = run_batch(instance, make_request(inputs, batching=batching), batching=batching)
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}


@pytest.mark.parametrize(
    ("element", "array"),
    [
        (TensorProto.BOOL, np.array([[True, False, True, True]])),
        *[
            (getattr(TensorProto, name), np.array([[0, 1, 2, 100]], name.lower()))
            for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")
        ],
        (TensorProto.FLOAT16, np.array([[0, -1, 0.5, 6e4]], np.float16)),
        (TensorProto.BFLOAT16, np.array([[0, -1, 0.5, 3e38]], DataType.BF16.dtype)),
        (TensorProto.FLOAT, np.array([[0, -1, np.inf, 1e-40]], np.float32)),
        (TensorProto.DOUBLE, np.array([[0, -1, np.pi, 1e300]], np.float64)),
        (TensorProto.STRING, np.array([[b"", b"a\0b", b"\0", "é".encode()]], object)),
    ],
)
def test_every_datatype_goes_through_unchanged(home: Home, element: int, array: np.ndarray) -> None:
    home.put(identity_model(element))
    if array.dtype != object:
        array.flags.writeable = False  # as the bytes of a request are

    outputs = run_one(home.open(), x=array)

    assert outputs["y"].dtype == array.dtype
    assert outputs["y"].tolist() == array.tolist()


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.STRING])
def test_tensors_without_elements_go_through(home: Home, element: int) -> None:
    home.put(identity_model(element, ("batch", None)))
    dtype = {1: np.dtype("f4"), 16: DataType.BF16.dtype, 8: np.dtype(object)}[element]

    assert run_one(home.open(), x=np.empty((2, 0), dtype))["y"].shape == (2, 0)


def test_batch_mates_get_views_of_one_result(home: Home) -> None:
    home.put(add_sub_model())
    ones = np.ones((1, 4), np.float32)
    batch = run_batch(
        home.open(),
        make_request({"a": ones, "b": ones}),
        make_request({"a": np.full((2, 4), 5, np.float32), "b": np.ones((2, 4), np.float32)}),
    )

    (first, second) = ({t.name: t.numpy() for t in outputs} for outputs in batch.outputs)
    assert first["sum"].tolist() == [[2.0] * 4]
    assert second["difference"].tolist() == [[4.0] * 4] * 2
    assert first["sum"].base is second["sum"].base is not None
    assert batch.gathered_ns <= batch.computed_ns


def test_only_wanted_outputs_are_computed(home: Home) -> None:
    home.put(add_sub_model())
    ones = np.ones((1, 4), np.float32)
    request = make_request({"a": ones, "b": ones}, ("difference",))

    batch = run_batch(home.open(), request)

    assert [tensor.name for tensor in batch.outputs[0]] == ["difference"]


def test_string_that_is_no_utf8_fails_its_request_and_no_other(home: Home) -> None:
    home.put(identity_model(TensorProto.STRING, ("batch", 1)))

    batch = run_batch(
        home.open(),
        make_request({"x": np.array([[b"\xff\xfe"]], object)}),
        make_request({"x": np.array([["ok"]], object)}),
    )

    assert isinstance(batch.errors[0], InvalidRequest)
    assert "UTF-8" in batch.errors[0].message
    assert 1 not in batch.errors
    assert batch.outputs[1][0].numpy().tolist() == [[b"ok"]]


def test_input_with_a_default_may_be_left_out(home: Home) -> None:
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in ("x", "w", "y")}
    weight = onnx.numpy_helper.from_array(np.array([10, 20], np.float32), "w")
    node = helper.make_node("Add", ["x", "w"], ["y"])
    home.put(graph_model([node], [values["x"], values["w"]], [values["y"]], [weight]))
    given = """input { name: "x" data_type: TYPE_FP32 dims: [2] }
               input { name: "w" data_type: TYPE_FP32 dims: [2] optional: true }"""
    x = np.ones(2, np.float32)

    instance = home.open(given)

    assert run_one(instance, batching=False, x=x)["y"].tolist() == [11, 21]
    assert run_one(instance, batching=False, x=x, w=x)["y"].tolist() == [2, 2]
    assert [tensor.name for tensor in home.complete().input] == ["x"]


def test_scalar_is_served_as_one_element(home: Home) -> None:
    home.put(identity_model(TensorProto.FLOAT, ()))

    config = home.complete()
    outputs = run_one(home.open(), batching=False, x=np.array(3, np.float32))

    assert list(config.input[0].dims) == [1]
    assert config.input[0].HasField("reshape")
    assert list(config.input[0].reshape.shape) == []
    assert outputs["y"].shape == ()
    assert outputs["y"] == 3


def test_error_of_the_runtime_is_no_serving_error(home: Home) -> None:
    home.put(identity_model(TensorProto.FLOAT))
    instance = home.open()

    with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
        run_one(instance, x=np.ones((1, 5), np.float32))

    assert not isinstance(caught.value, ServingError)


def test_model_without_config_gets_batching(home: Home) -> None:
    home.put(add_sub_model(("batch", 4)))

    config = home.complete()

    assert config.max_batch_size == 4
    assert config.HasField("dynamic_batching")
    assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
        ("a", pb.TYPE_FP32, [4]),
        ("b", pb.TYPE_FP32, [4]),
    ]
    assert [(t.name, list(t.dims)) for t in config.output] == [("sum", [4]), ("difference", [4])]


def test_model_with_a_fixed_first_dimension_does_not_batch(home: Home) -> None:
    home.put(add_sub_model((1, "length")))

    config = home.complete()

    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [1, -1]


def test_given_literal_dims_keep_a_model_from_batching(home: Home) -> None:
    home.put(identity_model())

    config = home.complete('input { name: "x" data_type: TYPE_FP32 dims: [-1, 4] }')

    assert config.max_batch_size == 0
    assert list(config.output[0].dims) == [-1, 4]


def test_given_scheduler_and_batch_size_are_kept(home: Home) -> None:
    home.put(identity_model())

    config = home.complete("max_batch_size: 16 sequence_batching {}")

    assert config.max_batch_size == 16
    assert config.WhichOneof("scheduling_choice") == "sequence_batching"


def test_partly_given_tensors_are_filled_in(home: Home) -> None:
    home.put(identity_model())

    config = home.complete('max_batch_size: 2 input { name: "x" } output { name: "y" }')

    assert (config.input[0].data_type, list(config.input[0].dims)) == (pb.TYPE_FP32, [4])
    assert (config.output[0].data_type, list(config.output[0].dims)) == (pb.TYPE_FP32, [4])


def test_config_may_list_some_outputs(home: Home) -> None:
    home.put(add_sub_model())

    config = home.complete('output { name: "difference" data_type: TYPE_FP32 dims: [4] }')

    assert [tensor.name for tensor in config.output] == ["difference"]


def test_reshape_is_compared_with_the_model(home: Home) -> None:
    home.put(identity_model(TensorProto.FLOAT, ("batch", 2, 2)))
    text = 'input { name: "x" data_type: TYPE_FP32 dims: [4] reshape { shape: [2, 2] } }'

    config = home.complete(text)

    assert list(config.input[0].dims) == [4]
    assert config.max_batch_size == 4


def test_output_shape_that_the_file_leaves_out_is_inferred(home: Home) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    home.put(graph_model([helper.make_node("Relu", ["x"], ["y"])], [x], [y]))

    assert list(home.complete().output[0].dims) == [4]


def test_default_model_filename_and_folder_are_found(home: Home) -> None:
    home.put(identity_model(), "model.onnx/model.onnx")
    home.put(add_sub_model(), "other.onnx")

    assert [t.name for t in home.complete().input] == ["x"]
    assert len(home.complete('default_model_filename: "other.onnx"').input) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'input { name: "x" data_type: TYPE_INT64 dims: [4] }',
            "input 'x' has data_type TYPE_INT64 in the config, but the model file has TYPE_FP32",
        ),
        (
            'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [3] }',
            r"input 'x' has dims \[3\] in the config, but the model file has \[4\] without the",
        ),
        (
            'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4, 1] }',
            r"has dims \[4, 1\]",
        ),
        (
            'max_batch_size: 8 output { name: "y" data_type: TYPE_FP32 dims: [-1] }',
            r"output 'y' has dims \[-1\] in the config, but the model file has \[4\]",
        ),
        ('input { name: "z" dims: [4] }', r"needs the inputs \['x'\].*\['z'\]"),
        ('output { name: "z" dims: [4] }', r"output 'z' .* not in the model file.*\['y'\]"),
        ('input { name: "x" optional: true }', "'x' is optional in the config, but"),
    ],
)
def test_config_against_the_model_is_refused(home: Home, text: str, message: str) -> None:
    home.put(identity_model())

    with pytest.raises(InvalidConfig, match=message):
        home.complete(text)


def test_batch_size_for_a_model_that_cannot_batch_is_refused(home: Home) -> None:
    home.put(identity_model(TensorProto.FLOAT, (1, 4)))

    with pytest.raises(InvalidConfig, match=r"max_batch_size is 8.*\[1, 4\].*max_batch_size: 0"):
        home.complete("max_batch_size: 8")


def test_config_is_compared_with_the_model_even_without_completion(home: Home) -> None:
    home.put(identity_model())
    text = """name: "m" max_batch_size: 8
        input { name: "x" data_type: TYPE_INT8 dims: [4] }
        output { name: "y" data_type: TYPE_FP32 dims: [4] }"""
    config = text_format.Parse(text, ModelConfig())

    with pytest.raises(InvalidConfig, match="TYPE_INT8"):
        home.backend.open(config, home.files, Placement("m_0_0", "KIND_CPU", 0, 1))


def test_sequence_output_is_left_out_unless_asked_for(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    parts = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("SequenceConstruct", ["x", "y"], ["parts"]),
    ]
    home.put(graph_model(nodes, [x], [y, parts]))

    assert [tensor.name for tensor in home.complete().output] == ["y"]
    assert "parts" in caplog.text
    with pytest.raises(InvalidConfig, match="'parts' is no tensor"):
        home.complete('output { name: "parts" }')


def count_sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the sessions that are made from now on."""
    made: list[str] = []
    make = sessions.create_session

    def counting(path: Path, plan: options.SessionPlan) -> ort.InferenceSession:
        made.append(path.name)
        return make(path, plan)

    monkeypatch.setattr(sessions, "create_session", counting)
    return made


def test_instances_of_a_version_share_one_session(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.put(identity_model())
    made = count_sessions(monkeypatch)

    first, second = home.open(), home.open()
    first.close()

    assert made == ["model.onnx"]
    assert not first.is_ready()
    assert run_one(second, x=np.ones((1, 4), np.float32))["y"].tolist() == [[1.0] * 4]


def test_session_is_freed_with_its_last_instance(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.put(identity_model())
    made = count_sessions(monkeypatch)

    home.open().close()
    gc.collect()
    home.open()

    assert len(made) == 2


def test_file_replaced_in_place_meets_no_older_session(home: Home) -> None:
    home.put(identity_model())
    older = home.open()
    node = helper.make_node("Neg", ["x"], ["y"])
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 4]) for n in "xy"]
    home.put(graph_model([node], value[:1], value[1:]))

    newer = home.open()

    ones = np.ones((1, 4), np.float32)
    assert run_one(newer, x=ones)["y"].tolist() == [[-1.0] * 4]
    assert run_one(older, x=ones)["y"].tolist() == [[1.0] * 4]
