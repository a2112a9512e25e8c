"""Files that are no ONNX model, or one that reaches outside its folder: refused, and told why."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement
from trivet.backends.onnxruntime.backend import BACKEND
from trivet.protos.model_config_pb2 import ModelConfig

CONFIG = ModelConfig(name="m", backend="onnxruntime")


def put(tmp_path: Path, content: bytes) -> ModelFiles:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(content)
    return ModelFiles(tmp_path / "m", 1)


def add_model(weight: TensorProto, *, in_subgraph: bool = False) -> bytes:
    """y = x + w, with w in the graph or in a branch of an If."""
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("x", "y", "z")}
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    weights = [weight]
    if in_subgraph:
        node = helper.make_node("Add", ["x", "w"], ["z"])
        branch = helper.make_graph([node], "b", [], [values["z"]], [weight])
        condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
        weights = [condition]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"]], weights)
    opsets = [helper.make_opsetid("", 17)]
    serialised: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return serialised


def external(location: str) -> TensorProto:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value="16")
    return weight


INTERNAL = onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")


@pytest.mark.parametrize(
    ("content", "looks_like"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"\x80\x04\x95" + b"\0" * 20, "a Python pickle"),
        (b"PK\x03\x04" + b"\0" * 40, "a zip archive"),
        (b"\x1f\x8b\x08" + b"\0" * 9, "a gzip archive"),
        (b"hello world\n", "a text file"),
        (add_model(INTERNAL)[:40], "a truncated or foreign binary file of 40 bytes"),
        (b"\xff" * 64, "a truncated or foreign binary file"),
    ],
)
def test_file_that_is_no_model_is_named_for_what_it_looks_like(
    tmp_path: Path, content: bytes, looks_like: str
) -> None:
    files = put(tmp_path, content)

    with pytest.raises(LoadFailed, match=f"'model.onnx' is not an ONNX model.*{looks_like}"):
        BACKEND.complete(CONFIG, files)


def test_every_truncation_is_refused_without_a_crash(tmp_path: Path) -> None:
    whole = add_model(INTERNAL, in_subgraph=True)
    files = put(tmp_path, whole)
    for length in range(0, len(whole) - 1, 7):
        (files.version_dir / "model.onnx").write_bytes(whole[:length])

        with pytest.raises(LoadFailed):
            BACKEND.open(CONFIG, files, Placement("m_0_0", "KIND_CPU", 0, 1))


def embedded(number: int, message: bytes) -> bytes:
    """A message as a field of another."""
    length = len(message)
    prefix = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return bytes([number << 3 | 2]) + prefix + message


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(40):  # graph.node.attribute.g
        graph = embedded(1, embedded(5, embedded(6, graph)))
    files = put(tmp_path, embedded(7, graph))

    with pytest.raises(LoadFailed, match="nested more than 32 deep"):
        BACKEND.complete(CONFIG, files)


@pytest.mark.more_of("R12")
@pytest.mark.parametrize("in_subgraph", [False, True])
@pytest.mark.parametrize("location", ["../../secret", "/etc/hostname", "link"])
def test_weights_outside_the_folder_are_refused(
    tmp_path: Path, location: str, in_subgraph: bool
) -> None:
    files = put(tmp_path, add_model(external(location), in_subgraph=in_subgraph))
    (tmp_path / "secret").write_bytes(b"\1" * 16)
    (files.version_dir / "link").symlink_to(tmp_path / "secret")

    with pytest.raises(LoadFailed, match="outside the model's folder") as caught:
        BACKEND.open(CONFIG, files, Placement("m_0_0", "KIND_CPU", 0, 1))

    assert location in caught.value.message


@pytest.mark.more_of("R12")
def test_missing_weights_are_named(tmp_path: Path) -> None:
    files = put(tmp_path, add_model(external("weights.bin")))

    with pytest.raises(LoadFailed, match=r"'weights.bin', which is missing"):
        BACKEND.complete(CONFIG, files)


def test_weights_beside_the_model_are_loaded(tmp_path: Path) -> None:
    files = put(tmp_path, add_model(external("weights.bin")))
    (files.version_dir / "weights.bin").write_bytes(np.full(4, 7, np.float32).tobytes())
    config = BACKEND.complete(CONFIG, files)

    instance = BACKEND.open(config, files, Placement("m_0_0", "KIND_CPU", 0, 1))

    assert instance.is_ready()


def test_model_that_onnx_runtime_refuses_gives_its_reason(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("NoSuchOp", ["x"], ["y"])], "g", [x], [y])
    files = put(tmp_path, helper.make_model(graph, ir_version=9).SerializeToString())
    config = BACKEND.complete(CONFIG, files)

    with pytest.raises(LoadFailed, match=r"could not be loaded by ONNX Runtime.*NoSuchOp"):
        BACKEND.open(config, files, Placement("m_0_0", "KIND_CPU", 0, 1))


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"has no file 'model.onnx'"):
        BACKEND.complete(CONFIG, ModelFiles(tmp_path / "m", 1))
