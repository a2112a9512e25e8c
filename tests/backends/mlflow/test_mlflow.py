"""MLflow's folders, written by MLflow: flavours that are data go to their backends, others wait for
the operator's word."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import cloudpickle
import lightgbm
import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
import xgboost
from google.protobuf import text_format
from mlflow.models import infer_signature
from onnx_models import add_sub_model, run_one
from sklearn.linear_model import LogisticRegression
from tree_models import ROWS, THREE, WORDS, catboost_model, parameters, prediction

from trivet.backends.api import Instance, LoadFailed, ModelFiles, Pickles, Placement
from trivet.backends.environments.installing import InstallRecipe
from trivet.backends.mlflow.manifest import read_manifest
from trivet.backends.registry import choose_about, open_backend
from trivet.protos.model_config_pb2 import ModelConfig

FRAME = pd.DataFrame(np.nan_to_num(ROWS).astype(np.float64), columns=list("abcde"))
COLUMNS: Any = {name: FRAME[[name]].to_numpy() for name in FRAME}
HERE = parameters(isolation="none")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def files(tmp_path: Path) -> ModelFiles:
    (tmp_path / "m").mkdir()
    return ModelFiles(tmp_path / "m", 1)


def save(files: ModelFiles, flavor: Any, model: Any = None, **more: Any) -> None:
    """As MLflow does, but without the search for requirements, which takes half a minute."""
    own = () if model is None else (model,)
    flavor.save_model(*own, path=str(files.version_dir), pip_requirements=[], **more)


def opened(files: ModelFiles, text: str = HERE, pickles: Pickles = Pickles.REFUSED) -> Instance:
    """As the server does it, with no config."""
    config = text_format.Parse(text, ModelConfig(name="m"))
    config.backend = choose_about(config, files).word
    assert config.backend == "mlflow"
    allowed = replace(files, pickles=pickles)
    backend = open_backend("mlflow")
    completed = backend.complete(config, allowed)
    assert (completed.backend, completed.default_model_filename) == ("mlflow", "")
    return backend.open(completed, allowed, Placement("m_0", "KIND_CPU", 0, 1))


def test_xgboost_takes_the_columns_of_its_signature(files: ModelFiles) -> None:
    model = xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(FRAME, THREE)
    save(files, mlflow.xgboost, model, signature=infer_signature(FRAME, model.predict(FRAME)))

    answer = run_one(opened(files), **COLUMNS)

    np.testing.assert_allclose(answer["output__0"], model.predict_proba(FRAME), rtol=1e-5)


def test_lightgbm_without_a_signature_takes_one_tensor(files: ModelFiles) -> None:
    model = lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbose=-1).fit(ROWS, THREE)
    save(files, mlflow.lightgbm, model.booster_)

    answer = run_one(opened(files), input__0=ROWS)

    np.testing.assert_allclose(answer["output__0"], model.predict_proba(ROWS), rtol=1e-5)


def test_catboost_and_onnx_go_to_their_backends(files: ModelFiles, tmp_path: Path) -> None:
    model = catboost_model("three")
    save(files, mlflow.catboost, model)
    other = ModelFiles(tmp_path / "n", 1)
    other.model_dir.mkdir()
    save(other, mlflow.onnx, onnx.load_from_string(add_sub_model()))
    ones = np.ones((2, 4), np.float32)

    trees = run_one(opened(files), input__0=ROWS)["output__0"]
    sums = run_one(opened(other), a=ones, b=ones)["sum"]

    np.testing.assert_allclose(trees, prediction(model), rtol=1e-5)
    np.testing.assert_array_equal(sums, ones * 2)


@pytest.mark.slow
def test_scikit_learn_by_skops_needs_nobodys_word(files: ModelFiles) -> None:
    model = LogisticRegression().fit(FRAME, WORDS)
    signature = infer_signature(FRAME, model.predict(FRAME))
    save(files, mlflow.sklearn, model, serialization_format="skops", signature=signature)

    answer = run_one(opened(files), **COLUMNS)

    np.testing.assert_array_equal(answer["predict_proba"], model.predict_proba(FRAME))


def test_a_pickled_flavor_is_refused_and_served_where_allowed(files: ModelFiles) -> None:
    model = LogisticRegression().fit(FRAME, WORDS)
    signature = infer_signature(FRAME, model.predict(FRAME))
    save(files, mlflow.sklearn, model, serialization_format="cloudpickle", signature=signature)

    with pytest.raises(LoadFailed, match=r"serialization_format='skops'.*--allow-pickle m,"):
        opened(files)
    answer = run_one(opened(files, pickles=Pickles.HERE), **COLUMNS)

    assert [each.decode() for each in answer["predict"].ravel()] == model.predict(FRAME).tolist()


def total_of_rows(self: Any, context: Any, model_input: Any, params: Any = None) -> Any:
    return model_input.sum(axis=1)


@pytest.mark.slow
def test_a_python_function_runs_in_a_process_of_its_own(files: ModelFiles) -> None:
    signature = infer_signature(FRAME, FRAME.sum(axis=1))

    base: Any = mlflow.pyfunc.PythonModel
    total = type("Total", (base,), {"predict": total_of_rows})
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    save(files, mlflow.pyfunc, python_model=total(), signature=signature)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])

    instance = opened(files, pickles=Pickles.APART)
    answer = run_one(instance, **COLUMNS)
    instance.close()

    np.testing.assert_allclose(answer["predict"][:, 0], FRAME.sum(axis=1))


def wanted(files: ModelFiles, text: str = "", **allowed: Any) -> Any:
    """The environment of a `python_function` that lists a package which is not there."""
    files.version_dir.mkdir(exist_ok=True)
    (files.version_dir / "MLmodel").write_text(text or CODE)
    (files.version_dir / "requirements.txt").write_text("mlflow\nno-such-package==1\n")
    config = ModelConfig(name="m", backend="mlflow")
    return open_backend("mlflow").environment(config, replace(files, **allowed))  # type: ignore[attr-defined]


def test_what_it_lists_is_installed_where_that_is_allowed(files: ModelFiles) -> None:
    recipe = wanted(files, pickles=Pickles.APART, may_install=True)

    assert isinstance(recipe, InstallRecipe)
    assert recipe.text == "mlflow\nno-such-package==1\n"


def test_what_it_lists_and_may_not_be_installed_is_said(
    files: ModelFiles, caplog: pytest.LogCaptureFixture
) -> None:
    """It may load with what there is, as it does for MLflow."""
    assert wanted(files, pickles=Pickles.APART) is None

    assert "'no-such-package==1' (not installed)" in caplog.text
    assert "--allow-install m," in caplog.text


def test_a_flavor_that_is_data_or_refused_installs_nothing(files: ModelFiles) -> None:
    assert wanted(files, may_install=True) is None
    data = "flavors: {xgboost: {data: model.ubj}, python_function: {}}"
    assert wanted(files, data, pickles=Pickles.APART, may_install=True) is None


CODE = """
flavors:
  python_function:
    loader_module: wolf
    code: code
"""


@pytest.mark.more_of("R30")
def test_code_that_it_names_is_not_run(files: ModelFiles) -> None:
    files.version_dir.mkdir()
    (files.version_dir / "MLmodel").write_text(CODE)
    (files.version_dir / "wolf.py").write_text("raise SystemExit('howl')")

    with pytest.raises(LoadFailed, match="it names loader_module 'wolf'"):
        opened(files)


@pytest.mark.more_of("R15")
def test_a_file_outside_the_folder_is_refused(files: ModelFiles) -> None:
    files.version_dir.mkdir()
    (files.version_dir / "MLmodel").write_text("flavors: {xgboost: {data: ../../x.ubj}}")

    with pytest.raises(LoadFailed, match="points outside"):
        opened(files)


ONNX = "flavors: {onnx: {}}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("flavors: [", "is no YAML"),
        ("- a", "names no flavors"),
        ("flavors: {}", "names no flavors"),
        ("flavors: {onnx: yes}", "flavor 'onnx' is no mapping"),
        ("flavors: {python_function: text}", "flavor 'python_function' is no mapping"),
        (
            'flavors: {onnx: {}}\nsignature: {inputs: \'[{"type": "map", "name": "a"}]\'}',
            "type map",
        ),
        (f"{ONNX}signature: {{inputs: 'x'}}", "signature that cannot be read"),
        ("!!python/object/apply:os.system [howl]", "is no YAML"),
    ],
)
def test_manifests_that_are_none_are_told(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "MLmodel").write_text(text)

    with pytest.raises(LoadFailed, match=reason):
        read_manifest(tmp_path / "MLmodel", "m")
