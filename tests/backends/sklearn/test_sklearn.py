"""scikit-learn's models by skops: what they take and give is learnt, and is what they predict."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from onnx_models import make_request, run_batch, run_one
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from tree_models import ROWS, VALUES, WORDS, Home, parameters

from trivet.backends.api import InvalidConfig, LoadFailed

FULL = np.nan_to_num(ROWS).astype(np.float64)
HERE = parameters(isolation="none")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m", "sklearn")


def put(home: Home, model: Any) -> Any:
    skops.io.dump(model, home.path("model.skops"))
    return model


def test_a_classifier_gives_labels_and_probabilities(home: Home) -> None:
    model = put(home, make_pipeline(StandardScaler(), LogisticRegression()).fit(FULL, WORDS))

    config = home.complete(HERE)
    answers = run_one(home.open(HERE), input=FULL)

    assert [(each.name, list(each.dims)) for each in config.input] == [("input", [5])]
    assert [(each.name, list(each.dims)) for each in config.output] == [
        ("predict", [1]),
        ("predict_proba", [3]),
    ]
    assert config.parameters["classes"].string_value == '["ant", "ibex", "yak"]'
    assert [each.decode() for each in answers["predict"]] == model.predict(FULL).tolist()
    np.testing.assert_array_equal(answers["predict_proba"], model.predict_proba(FULL))


def test_a_regressor_takes_the_type_that_the_config_says(home: Home) -> None:
    model = put(home, LinearRegression().fit(FULL, VALUES))
    config = HERE + 'input { name: "rows" data_type: TYPE_FP32 dims: [ 5 ] }'

    answers = run_one(home.open(config), rows=FULL.astype(np.float32))

    np.testing.assert_allclose(answers["predict"], model.predict(FULL.astype(np.float32)))


def test_a_transformer_transforms(home: Home) -> None:
    model = put(home, StandardScaler().fit(FULL))

    answers = run_one(home.open(HERE), input=FULL)

    np.testing.assert_array_equal(answers["transform"], model.transform(FULL))


def test_texts_are_one_column(home: Home) -> None:
    texts = [f"{word} grazes" for word in WORDS]
    model = put(home, make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, WORDS))
    config = HERE + 'max_batch_size: 8 input { name: "text" data_type: TYPE_STRING dims: [ 1 ] }'
    sent = np.array([[b"an ibex grazes"], [b"a yak"]], dtype=object)

    answers = run_one(home.open(config), text=sent)

    expected = model.predict(["an ibex grazes", "a yak"]).tolist()
    assert [each.decode() for each in answers["predict"].ravel()] == expected
    with pytest.raises(InvalidConfig, match=r"does not say what it takes.*TYPE_STRING"):
        home.complete(HERE)


def column_model(frame: pd.DataFrame, labels: np.ndarray) -> Any:
    columns = ColumnTransformer(
        [("n", StandardScaler(), ["age", "height"]), ("c", OneHotEncoder(), ["town"])]
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame, labels)


def test_columns_with_names_are_inputs_of_their_own(home: Home) -> None:
    frame = pd.DataFrame(
        {"age": FULL[:, 0], "town": np.where(FULL[:, 1] > 0, "Bonn", "Ulm"), "height": FULL[:, 2]}
    )
    model = put(home, column_model(frame, WORDS))
    config = (
        f"{HERE} max_batch_size: 256"
        ' input { name: "age" data_type: TYPE_FP64 dims: [ 1 ] }'
        ' input { name: "height" data_type: TYPE_FP64 dims: [ 1 ] }'
        ' input { name: "town" data_type: TYPE_STRING dims: [ 1 ] }'
        ' output { name: "predict_proba" data_type: TYPE_FP64 dims: [ 3 ] }'
    )
    town = frame["town"].to_numpy(dtype=object).reshape(-1, 1)

    answers = run_one(
        home.open(config),
        age=frame[["age"]].to_numpy(),
        height=frame[["height"]].to_numpy(),
        town=np.vectorize(str.encode, otypes=[object])(town),
    )

    np.testing.assert_allclose(answers["predict_proba"], model.predict_proba(frame))
    with pytest.raises(InvalidConfig, match="one for each column"):
        home.complete(HERE)


def test_columns_of_numbers_need_no_config(home: Home) -> None:
    frame = pd.DataFrame({"age": FULL[:, 0], "height": FULL[:, 2]})
    columns = ColumnTransformer([("n", StandardScaler(), ["age", "height"])])
    model = put(home, make_pipeline(columns, LogisticRegression()).fit(frame, WORDS))

    answers = run_one(home.open(HERE), age=FULL[:, :1], height=FULL[:, 2:3])

    np.testing.assert_allclose(answers["predict_proba"], model.predict_proba(frame))


def test_a_batch_is_one_call_and_each_request_gets_its_rows(home: Home) -> None:
    model = put(home, RandomForestClassifier(5, n_jobs=-1, random_state=0).fit(FULL, WORDS))
    parts = [FULL[:2], FULL[2:3]]

    batch = run_batch(home.open(HERE), *(make_request({"input": part}) for part in parts))

    expected = model.predict_proba(FULL[:3])
    found = [{each.name: each.numpy() for each in outputs} for outputs in batch.outputs]
    np.testing.assert_array_equal(found[0]["predict_proba"], expected[:2])
    np.testing.assert_array_equal(found[1]["predict_proba"], expected[2:])


def double(values: np.ndarray) -> np.ndarray:
    return values * 2


def test_unknown_types_are_named_and_can_be_trusted(home: Home) -> None:
    model = put(home, make_pipeline(FunctionTransformer(double), LinearRegression()))
    model.fit(FULL, VALUES)
    put(home, model)
    unknown = f"{__name__}.double"

    with pytest.raises(LoadFailed, match=rf"not known to be harmless: {unknown}\..*trusted_types"):
        home.complete(HERE)
    answers = run_one(home.open(HERE + parameters(trusted_types=unknown)), input=FULL)

    np.testing.assert_allclose(answers["predict"], model.predict(FULL))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_off_is_refused_by_name(home: Home, share: float) -> None:
    put(home, LinearRegression().fit(FULL, VALUES))
    content = home.path("model.skops").read_bytes()
    home.path("model.skops").write_bytes(content[: int(len(content) * share)])

    with pytest.raises(LoadFailed, match=r"'model\.skops' is no skops file"):
        home.complete(HERE)


def test_a_zip_of_something_else_is_refused(home: Home) -> None:
    with zipfile.ZipFile(home.path("model.skops"), "w") as archive:
        archive.writestr("schema.json", "[]")

    with pytest.raises(LoadFailed, match=r"'model\.skops' could not be read by skops"):
        home.complete(HERE)


def test_an_output_that_is_no_method_is_named(home: Home) -> None:
    put(home, LinearRegression().fit(FULL, VALUES))

    with pytest.raises(InvalidConfig, match=r"LinearRegression has no 'scores'; it has \['pre"):
        home.complete(HERE + 'output { name: "scores" }')
