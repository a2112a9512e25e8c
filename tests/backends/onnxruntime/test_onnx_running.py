"""What clients get from an ONNX model: values, types, memory, errors."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import (
    Home,
    add_sub_model,
    graph_model,
    identity_model,
    make_request,
    run_batch,
    run_one,
)

from trivet.backends.api import (
    DataType,
    InvalidRequest,
    ServingError,
)


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
