"""Trees of each library: completed from the file, computed as the library itself predicts."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from onnx_models import make_request, run_batch, run_one
from tree_models import (
    NUM_FEATURES,
    ROWS,
    SAVERS,
    TENSORS,
    THREE,
    TWO,
    Home,
    lightgbm_model,
    parameters,
    prediction,
    xgboost_model,
)

from trivet.backends.api import Claim, InvalidConfig, Listing, LoadFailed, Match
from trivet.backends.registry import abouts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "m")


@pytest.mark.parametrize("kind", ["two", "three", "value"])
@pytest.mark.parametrize("name", SAVERS)
def test_a_bare_file_predicts_as_its_library(home: Home, name: str, kind: str) -> None:
    model = home.put(name, kind)
    expected = prediction(model)

    config = home.complete()

    assert [(each.name, list(each.dims)) for each in config.input] == [("input__0", [NUM_FEATURES])]
    assert [list(each.dims) for each in config.output] == [[expected.shape[1]]]
    assert config.HasField("dynamic_batching")
    np.testing.assert_allclose(home.answer(), expected, rtol=1e-5, atol=1e-6)


def test_requests_are_computed_together_and_get_their_own_rows(home: Home) -> None:
    expected = prediction(home.put("model.ubj", "three"))
    parts = [ROWS[:3], ROWS[3:4], ROWS[4:9]]

    batch = run_batch(home.open(), *(make_request({"input__0": part}) for part in parts))

    answers = [outputs[0].numpy() for outputs in batch.outputs]
    assert [len(each) for each in answers] == [3, 1, 5]
    np.testing.assert_allclose(np.concatenate(answers), expected[:9], rtol=1e-5)


def test_names_of_classes_are_in_the_config_in_their_order(home: Home) -> None:
    model = home.put("model.cbm", "three")

    config = home.complete()

    assert list(model.classes_) == ["ant", "ibex", "yak"]
    assert config.parameters["classes"].string_value == '["ant", "ibex", "yak"]'


CLASS = parameters(output_class="true")
PROBA = parameters(output_class="true", predict_proba="true")


@pytest.mark.parametrize(
    ("name", "under", "model_type"),
    [
        ("model.json", "xgboost.json", "xgboost_json"),
        ("model.ubj", "xgboost.ubj", "xgboost_ubj"),
        ("model.ubj", "xgboost.model", "xgboost"),
        ("model.txt", "", "lightgbm"),
    ],
)
def test_a_config_of_tritons_fil_backend_is_read_unchanged(
    home: Home, name: str, under: str, model_type: str
) -> None:
    probabilities = prediction(home.put(name, "three", under))
    kind = parameters(model_type=model_type, algo="ALGO_AUTO", storage_type="AUTO")

    classes = home.answer(TENSORS.format(columns=1) + kind + CLASS)
    each = home.answer(TENSORS.format(columns=3) + kind + PROBA)

    np.testing.assert_array_equal(classes, probabilities.argmax(axis=1)[:, None])
    assert classes.dtype == np.float32
    np.testing.assert_allclose(each, probabilities, rtol=1e-5)


@pytest.mark.parametrize("name", SAVERS)
def test_a_binary_classifier_answers_as_triton(home: Home, name: str) -> None:
    first, second = prediction(home.put(name, "two")).T

    def ask(columns: int, **said: str) -> np.ndarray:
        return home.answer(TENSORS.format(columns=columns) + parameters(**said))

    np.testing.assert_allclose(ask(1)[:, 0], second, rtol=1e-5)
    np.testing.assert_allclose(ask(1, predict_proba="true")[:, 0], second, rtol=1e-5)
    np.testing.assert_allclose(ask(2, predict_proba="true")[:, 0], first, rtol=1e-4, atol=1e-6)
    chosen = ask(1, output_class="true", threshold="0.3")
    np.testing.assert_array_equal(chosen[:, 0], second > 0.3)


@pytest.mark.parametrize("kind", ["two", "three"])
@pytest.mark.parametrize("name", SAVERS)
def test_shapley_values_add_up_to_the_raw_score(home: Home, name: str, kind: str) -> None:
    home.put(name, kind)
    dims = f"{NUM_FEATURES + 1}" if kind == "two" else f"3, {NUM_FEATURES + 1}"
    config = (
        'output { name: "output__0" } '
        f'output {{ name: "treeshap_output" data_type: TYPE_FP32 dims: [ {dims} ] }}'
    )

    answers = run_one(home.open(config), input__0=ROWS)

    raw = answers["treeshap_output"].sum(axis=-1)
    score = np.log(answers["output__0"])
    found = raw if kind == "two" else raw[:, 1] - raw[:, 0]
    np.testing.assert_allclose(found, score[:, 1] - score[:, 0], rtol=1e-3, atol=1e-4)


def test_early_stopping_counts_as_for_the_class_that_saved_it(home: Home) -> None:
    """And not under Triton's config, which takes all trees."""
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, n_jobs=1)
    model.fit(ROWS[:100], TWO[:100], eval_set=[(ROWS[100:], 1 - TWO[100:])], verbose=False)
    model.save_model(home.path("model.ubj"))
    everything = model.get_booster().predict(xgboost.DMatrix(ROWS), iteration_range=(0, 0))

    bare = home.answer()
    triton = home.answer(TENSORS.format(columns=1) + parameters(model_type="xgboost_ubj"))

    np.testing.assert_allclose(bare, prediction(model), rtol=1e-5)
    np.testing.assert_allclose(triton[:, 0], everything, rtol=1e-5)
    assert np.abs(triton[:, 0] - bare[:, 1]).max() > 0.01


def test_softmax_objective_gives_probabilities(home: Home) -> None:
    """XGBoost itself gives the class's number for it."""
    settings = {"objective": "multi:softmax", "num_class": 3, "max_depth": 3, "nthread": 1}
    data = xgboost.DMatrix(ROWS, label=THREE)
    xgboost.train(settings, data, 4).save_model(home.path("model.ubj"))
    told = {**settings, "objective": "multi:softprob"}

    answer = home.answer()

    np.testing.assert_allclose(answer, xgboost.train(told, data, 4).predict(data), rtol=1e-4)


@pytest.mark.more_of("R29")
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", SAVERS)
def test_a_file_cut_off_is_refused_by_name(home: Home, name: str, share: float) -> None:
    home.put(name, "three")
    content = home.path(name).read_bytes()
    home.path(name).write_bytes(content[: int(len(content) * share)])

    with pytest.raises(LoadFailed, match=name) as raised:
        home.complete()

    assert "\n" not in raised.value.message
    assert len(raised.value.message) < 500


def test_no_part_of_an_xgboost_file_reaches_its_reader(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads on behind the end."""
    home.put("model.ubj", "three")
    content = home.path("model.ubj").read_bytes()
    home.complete()
    monkeypatch.setattr(xgboost.Booster, "load_model", None)
    for size in {*range(1, len(content), 97), len(content) - 1}:
        home.path("model.ubj").write_bytes(content[:size])
        with pytest.raises(LoadFailed, match=r"model\.ubj"):
            home.complete()


@pytest.mark.more_of("R29")
def test_a_text_whose_nodes_lead_nowhere_is_refused(home: Home) -> None:
    """LightGBM would follow them out of its memory."""
    home.put("model.txt", "two")
    text = home.path("model.txt").read_text()
    start = text.index("split_feature=") + len("split_feature=")
    home.path("model.txt").write_text(f"{text[:start]}99{text[start + 1 :]}")

    with pytest.raises(LoadFailed, match="tree 0 needs 5 numbers from 0 to 4 as split_feature"):
        home.complete()


def test_a_text_of_constant_trees_is_whole(home: Home) -> None:
    data = lightgbm.Dataset(ROWS, label=np.ones(len(ROWS)))
    settings = {"verbose": -1, "num_threads": 1, "objective": "regression"}
    lightgbm.train(settings, data, 2).save_model(home.path("model.txt"))

    np.testing.assert_allclose(home.answer(), np.ones((len(ROWS), 1)), rtol=1e-6)


def test_old_binary_and_treelite_files_are_told_the_way(home: Home) -> None:
    home.path("xgboost.model").write_bytes(b"binf\0\0\0\0")
    with pytest.raises(LoadFailed, match=r"old binary format.*save_model"):
        home.complete(parameters(model_type="xgboost"))
    home.path("checkpoint.tl").write_bytes(b"\x04\0\0\0")
    with pytest.raises(LoadFailed, match=r"Treelite.*model\.ubj"):
        home.complete(parameters(model_type="treelite_checkpoint"))


def test_categories_of_catboost_are_refused_with_their_names(home: Home) -> None:
    import catboost

    rows = [[str(place % 3), float(place)] for place in range(30)]
    model = catboost.CatBoostClassifier(iterations=2, verbose=0, allow_writing_files=False)
    model.fit(catboost.Pool(rows, [place % 2 for place in range(30)], cat_features=[0]))
    model.save_model(str(home.path("model.cbm")))

    with pytest.raises(LoadFailed, match=r"categorical or text features \['0'\]"):
        home.complete()


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"model_type": "forest"}, "model_type is 'forest'.*xgboost_ubj"),
        ({"predict_proba": "yes"}, "predict_proba is 'yes'"),
        ({"output_class": "true", "threshold": "half"}, "threshold is 'half'"),
        ({"cpu_nthread": "many"}, "cpu_nthread is 'many'"),
    ],
)
def test_wrong_parameters_are_named(home: Home, said: dict[str, str], text: str) -> None:
    home.put("model.ubj", "two")

    with pytest.raises(InvalidConfig, match=text):
        home.open(parameters(**said))


def test_dims_that_are_not_the_files_name_both(home: Home) -> None:
    home.put("model.ubj", "three")

    with pytest.raises(InvalidConfig, match=r"dims \[1\] in the config.*has \[3\]"):
        home.complete(TENSORS.format(columns=1) + PROBA)


def test_shared_suffixes_are_told_by_content() -> None:
    about = abouts()["fil"]

    def claim(name: str, text: str) -> Match | None:
        return about.match(Listing(frozenset({name}), head_of=lambda _: text.encode()))

    assert claim("model.json", '{ "learner" : {}}') == Match(Claim.FILE, "model.json")
    assert claim("herd.json", '{"learner":{}}') == Match(Claim.ONLY, "herd.json")
    assert claim("model.json", '{"labels": []}') is None
    assert claim("model.txt", "tree\r\nversion=v4\n") == Match(Claim.FILE, "model.txt")
    assert claim("model.txt", "cat\ndog\n") is None
    assert {xgboost_model("two").n_estimators, lightgbm_model("two").n_estimators} == {8}


@pytest.mark.parametrize("name", ["model.ubj", "model.txt"])
def test_each_feature_may_be_an_input_of_its_own(home: Home, name: str) -> None:
    """In the order of the file, whatever that of the config is, and in the library's precision."""
    frame = pd.DataFrame(ROWS.astype(np.float64), columns=list("abcde"))
    is_lightgbm = name == "model.txt"
    kind: Any = lightgbm.LGBMClassifier if is_lightgbm else xgboost.XGBClassifier
    model = kind(n_estimators=4, n_jobs=1, verbosity=-1 if is_lightgbm else 0).fit(frame, THREE)
    book: Any = model.booster_ if is_lightgbm else model
    book.save_model(home.path(name))
    config = "max_batch_size: 256" + "".join(
        f' input {{ name: "{letter}" data_type: TYPE_FP64 dims: [ 1 ] }}' for letter in "edcba"
    )
    columns: Any = {letter: frame[[letter]].to_numpy() for letter in "abcde"}

    answer = run_one(home.open(config), **columns)["output__0"]

    np.testing.assert_allclose(answer, model.predict_proba(frame), rtol=1e-5)
    with pytest.raises(InvalidConfig, match="has 1 inputs, but the model file has 5 features"):
        home.complete('input { name: "a" }')
