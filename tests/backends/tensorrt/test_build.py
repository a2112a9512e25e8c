"""`trivet build-engine` with the real TensorRT-RTX, which parses and builds without a GPU."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from onnx_models import add_sub_model, graph_model, identity_model

from trivet.backends.api import ModelFiles
from trivet.backends.tensorrt.backend import TensorRtBackend
from trivet.backends.tensorrt.description import Description
from trivet.backends.tensorrt.plan_file import PlanHeader
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.cli import main

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")


def build(model: bytes, folder: Path, *arguments: str) -> Result:
    path = folder / "model.onnx"
    path.write_bytes(model)
    return CliRunner().invoke(main, ["build-engine", str(path), *arguments])


def told(result: Result) -> str:
    """The error, on one line."""
    assert result.exit_code != 0, result.output
    return " ".join(result.output.split())


def test_a_plan_and_its_note_are_made_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    result = build(
        add_sub_model(), tmp_path, "--max-batch-size", "8", "--compute-capability", "8.9"
    )
    assert result.exit_code == 0, result.output
    assert "input a FP32 [-1, 4]" in result.output
    header = PlanHeader.read(tmp_path / "model.plan")
    assert header is not None
    assert header.made_by == "TensorRT-RTX"
    assert ".".join(map(str, header.version)) == rtx.__version__
    note = Description.read(tmp_path / "model.plan")
    assert note is not None
    assert note.compute_capabilities == ("8.9",)
    assert (note.profiles[0]["a"].low, note.profiles[0]["a"].high) == ((1, 4), (8, 4))


def test_a_config_is_completed_from_the_note_without_a_gpu(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    assert build(add_sub_model(), folder, "--max-batch-size", "16").exit_code == 0
    config = TensorRtBackend().complete(ModelConfig(name="m"), ModelFiles(folder.parent, 1))
    assert config.max_batch_size == 16
    assert [tensor.name for tensor in config.output] == ["sum", "difference"]


def test_profiles_come_from_a_toml_file_or_from_flags(tmp_path: Path) -> None:
    file = tmp_path / "build.toml"
    file.write_text(
        "[[profiles]]\nx = { min = [1, 2], opt = [2, 4], max = [4, 8] }\n"
        "[[profiles]]\nx = { min = [4, 2], opt = [8, 4], max = [32, 8] }\n"
    )
    model = identity_model(dims=("n", "m"))
    assert build(model, tmp_path, "--config", str(file)).exit_code == 0
    note = Description.read(tmp_path / "model.plan")
    assert note is not None
    assert [profile["x"].high for profile in note.profiles] == [(4, 8), (32, 8)]
    flags = ("--profile", "x=1x2:2x4:4x8", "-o", str(tmp_path / "other.plan"))
    assert build(model, tmp_path, *flags).exit_code == 0
    other = Description.read(tmp_path / "other.plan")
    assert other is not None
    assert other.profiles == note.profiles[:1]


def test_the_batch_size_may_come_from_a_model_s_config(tmp_path: Path) -> None:
    config = tmp_path / "config.pbtxt"
    config.write_text("max_batch_size: 12")
    assert build(identity_model(), tmp_path, "--config", str(config)).exit_code == 0
    note = Description.read(tmp_path / "model.plan")
    assert note is not None
    assert note.profiles[0]["x"].high == (12, 4)


def test_shape_tensors_have_profiles_of_values(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    model = graph_model(
        [helper.make_node("Reshape", ["x", "s"], ["y"])],
        [info("x", TensorProto.FLOAT, ["n", 4]), info("s", TensorProto.INT64, [2])],
        [info("y", TensorProto.FLOAT, ["a", "b"])],
    )
    result = build(model, tmp_path, "--profile", "x=1x4:2x4:8x4,s=1x4:2x4:8x4")
    assert result.exit_code == 0, result.output
    note = json.loads((tmp_path / "model.plan.json").read_text())
    assert [tensor["is_shape_tensor"] for tensor in note["inputs"]] == [False, True]


def test_a_network_with_weights_keeps_its_names(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    info = helper.make_tensor_value_info
    model = graph_model(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])],
        [info("x", TensorProto.FLOAT, ["n", 4])],
        [info("y", TensorProto.FLOAT, ["n", 3])],
        [weight],
    )
    result = build(model, tmp_path, "--max-batch-size", "2")
    assert result.exit_code == 0, result.output
    assert "output y FP32 [-1, 3]" in result.output


WRONG = {
    "no profile": ((), r"input 'x' has shape \[-1, 4\]: say what to build for with a profile"),
    "unknown input": (
        ("--profile", "z=1:1:1"),
        r"profile 0 has input 'z'; the model's are \['x'\]",
    ),
    "rank": (("--profile", "x=1:2:3"), "min, opt and max need 2 dimensions each"),
    "order": (("--profile", "x=4x4:2x4:8x4"), r"min <= opt <= max must hold"),
    "fixed": (
        ("--profile", "x=1x4:2x4:8x5"),
        "dimension 1 is 4 in the model, the profile has 4 to",
    ),
    "syntax": (("--profile", "x=1x4"), "write NAME=MIN:OPT:MAX"),
    "type": (("--max-batch-size", "4", "--fp16"), "has no FP16: convert the ONNX model"),
    "gpu": (
        ("--max-batch-size", "4", "--compute-capability", "9.0"),
        r"cannot build for compute capability '9.0', only for .*8\.9",
    ),
    "lean": (("--max-batch-size", "4", "--version-compatible"), "install tensorrt-lean-cu13, or"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told(case: str, tmp_path: Path) -> None:
    arguments, pattern = WRONG[case]
    result = build(identity_model(), tmp_path, *arguments)
    assert re.search(pattern, told(result)), result.output
    assert not (tmp_path / "model.plan").exists()


def test_a_file_that_is_no_model_and_an_operator_that_is_none_are_told(tmp_path: Path) -> None:
    assert "could not be read by TensorRT-RTX" in told(build(b"garbage" * 10, tmp_path))
    info = helper.make_tensor_value_info
    model = onnx.load_from_string(
        graph_model(
            [helper.make_node("Frobnicate", ["x"], ["y"], name="node_7")],
            [info("x", TensorProto.FLOAT, [2])],
            [info("y", TensorProto.FLOAT, [2])],
        )
    ).SerializeToString()
    assert "node 'node_7' (Frobnicate)" in told(build(model, tmp_path))


def test_an_unknown_setting_is_told(tmp_path: Path) -> None:
    file = tmp_path / "build.toml"
    file.write_text("max_batchsize = 3")
    result = build(identity_model(), tmp_path, "--config", str(file))
    assert "unknown build setting 'max_batchsize'; there are" in told(result)
