"""Configs of ONNX models: what the file fills in and what it contradicts."""

import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from onnx_models import Home, add_sub_model, graph_model, identity_model

from trivet.backends.api import (
    InvalidConfig,
    Placement,
)
from trivet.protos import model_config_pb2 as pb
from trivet.protos.model_config_pb2 import ModelConfig


def test_model_without_config_gets_batching(home: Home) -> None:
    home.put(add_sub_model(("batch", 4)))

    config = home.complete()

    assert config.max_batch_size == 1024
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
    assert config.max_batch_size == 1024


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
