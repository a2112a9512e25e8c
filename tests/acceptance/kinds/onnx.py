"""ONNX files, as they are written by onnx and read by ONNX Runtime."""

from functools import partial
from pathlib import Path

import numpy as np
from acceptance.kind import MODEL, Kind, Prediction, model_folder


def _linear() -> bytes:
    """y = x W + b, of rows with four values."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(3)
    weights = numpy_helper.from_array(random.normal(size=(4, 3)).astype(np.float32), "W")
    bias = numpy_helper.from_array(random.normal(size=3).astype(np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "W", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [weights, bias],
    )
    opsets = [helper.make_opsetid("", 17)]
    written: bytes = helper.make_model(
        graph, opset_imports=opsets, ir_version=9
    ).SerializeToString()
    return written


def _predict(path: Path) -> Prediction:
    import onnxruntime

    x = np.random.default_rng(4).normal(size=(4, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Prediction({"x": x}, {"y": session.run(["y"], {"x": x})[0]})


def _file(place: Path, *, name: str) -> Prediction:
    path = model_folder(place) / name
    path.write_bytes(_linear())
    return _predict(path)


def _external(place: Path) -> Prediction:
    """A folder model.onnx, in which the weights have a file of their own."""
    import onnx

    folder = model_folder(place) / "model.onnx"
    folder.mkdir()
    onnx.save_model(
        onnx.load_model_from_string(_linear()),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return _predict(folder / "model.onnx")


def _flat(place: Path) -> Prediction:
    """In the model's folder itself, whatever it is called."""
    path = model_folder(place, "") / "net.onnx"
    path.write_bytes(_linear())
    return _predict(path)


def _lone(place: Path) -> Prediction:
    """Beside the folders."""
    path = place / f"{MODEL}.onnx"
    path.write_bytes(_linear())
    return _predict(path)


KINDS = (
    Kind(
        title="ONNX",
        files="`model.onnx`",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=partial(_file, name="model.onnx"),
    ),
    Kind(
        title="ONNX under another name",
        files="the only `.onnx` file",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=partial(_file, name=f"{MODEL}_v2.onnx"),
    ),
    Kind(
        title="ONNX without a version folder",
        files="`NAME/model.onnx`, or the only `.onnx` file there",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=_flat,
    ),
    Kind(
        title="ONNX without a folder",
        files="`NAME.onnx` beside the folders",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=_lone,
    ),
    Kind(
        title="ONNX with external data",
        files="`model.onnx/model.onnx` and the files that it names",
        backend="onnxruntime",
        library="ONNX Runtime",
        extra="onnx",
        make=_external,
    ),
)
