"""What OpenVINO writes."""

from functools import partial
from pathlib import Path

import numpy as np
from acceptance.kind import MODEL, Kind, Prediction, model_folder


def _ir(place: Path, *, name: str) -> Prediction:
    import openvino
    from openvino_models import save_ir

    path = model_folder(place) / name
    save_ir(path)
    x = np.random.default_rng(10).normal(size=(4, 4)).astype(np.float32)
    y = openvino.compile_model(path, "CPU")(x)[0]
    return Prediction({"x": x}, {"y": np.array(y)})


def _onnx(place: Path) -> Prediction:
    import openvino
    from onnx_models import add_sub_model

    folder = model_folder(place)
    (folder.parent / "config.pbtxt").write_text('backend: "openvino"')
    (folder / "model.onnx").write_bytes(add_sub_model())
    a, b = np.random.default_rng(11).normal(size=(2, 4, 4)).astype(np.float32)
    outputs = openvino.compile_model(folder / "model.onnx", "CPU")({"a": a, "b": b})
    return Prediction({"a": a, "b": b}, {n: np.array(outputs[n]) for n in ("sum", "difference")})


KINDS = (
    Kind(
        title="OpenVINO IR",
        files="`model.xml` or Optimum's `openvino_model.xml`, or the only `.xml` file that is one, "
        "and its `.bin`",
        backend="openvino",
        library="OpenVINO",
        extra="openvino",
        make=partial(_ir, name=f"{MODEL}.xml"),
    ),
    Kind(
        title="ONNX by OpenVINO",
        files="`model.onnx`",
        backend="openvino",
        library="OpenVINO",
        extra="openvino",
        config='`backend: "openvino"`',
        make=_onnx,
    ),
)
