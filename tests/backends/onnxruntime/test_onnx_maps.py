"""Classifiers whose files give maps of class to probability: one tensor, classes in their order."""

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
from onnx_models import Home, run_one, zip_map_model
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tree_models import ROWS, WORDS, catboost_model

FULL = np.nan_to_num(ROWS)
NUMBERS = np.select([WORDS == "ant", WORDS == "ibex"], [-5, 3], 70)


def sklearn_file(labels: np.ndarray, path: Path) -> Any:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(FULL, labels)
    path.write_bytes(to_onnx(model, FULL[:1]).SerializeToString())
    return model


def lightgbm_file(labels: np.ndarray, path: Path) -> Any:
    model = lightgbm.LGBMClassifier(n_estimators=5, num_leaves=5, n_jobs=1, verbose=-1)
    model.fit(FULL, labels)
    inputs = [("input", FloatTensorType([None, FULL.shape[1]]))]
    path.write_bytes(convert_lightgbm(model, initial_types=inputs).SerializeToString())
    return model


def catboost_file(labels: np.ndarray, path: Path) -> Any:
    model = catboost_model("three")
    model.save_model(str(path), format="onnx")
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("write", "labels"),
    [
        (sklearn_file, WORDS),
        (sklearn_file, NUMBERS),
        (sklearn_file, WORDS == "ant"),
        (lightgbm_file, WORDS),
        (catboost_file, WORDS),
    ],
)
def test_probabilities_are_one_tensor_in_the_models_order(
    home: Home, write: Any, labels: np.ndarray
) -> None:
    home.put(b"")
    model = write(labels, home.files.version_dir / "model.onnx")

    config = home.complete()
    inputs: Any = {config.input[0].name: FULL}
    answers = run_one(home.open(), **inputs)

    assert config.HasField("dynamic_batching")
    label, probabilities = answers.values()
    expected = model.predict_proba(FULL)
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4, atol=1e-6)
    classes = json.loads(config.parameters["classes"].string_value)
    assert [str(each) for each in classes] == [
        str(int(c) if isinstance(c, np.bool_) else c) for c in model.classes_
    ]
    found = [each.decode() if isinstance(each, bytes) else each for each in label.ravel()]
    assert found == [classes[place] for place in probabilities.argmax(axis=1)]


def test_weights_beside_such_a_file_are_found(home: Home) -> None:
    home.put(zip_map_model(np.full((4, 2), 0.5, np.float32)))
    path = home.files.version_dir / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    assert (path.parent / "w.data").exists()

    answer = run_one(home.open(), x=np.ones((3, 4), np.float32))

    np.testing.assert_array_equal(answer["y"], np.full((3, 2), 2.0, np.float32))


def test_numbers_of_classes_may_be_negative(home: Home) -> None:
    home.put(zip_map_model(np.ones((4, 2), np.float32)))

    config = home.complete()

    assert config.parameters["classes"].string_value == "[7, -1]"
    assert [list(each.dims) for each in config.output] == [[2]]
