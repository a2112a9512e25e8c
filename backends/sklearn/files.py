"""Reads models: skops files without running anything unknown, pickles where that is allowed.

scikit-learn is imported where a model is read, which is in a process of its own.
"""

import zipfile
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed, parameter
from trivet.backends.api.content import describe_content
from trivet.backends.sklearn.about import PICKLES, TRUSTED_TYPES
from trivet.protos.model_config_pb2 import ModelConfig

SKOPS_FIX = (
    "save the model with skops.io.dump(model, 'model.skops'), or as ONNX (skl2onnx) as model.onnx"
)
_EXTRAS = {
    "catboost": "catboost",
    "joblib": "sklearn",
    "lightgbm": "lightgbm",
    "skops": "sklearn",
    "sklearn": "sklearn",
    "torch": "torch",
    "xgboost": "xgboost",
}
DATA_TYPES = frozenset(
    {
        "numpy.dtype",
        "numpy.mean",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
"""scikit-learn's own parts of common estimators. skops leaves them to whoever loads: they run
nothing of the file's, but a tree's nodes are numbers that scikit-learn follows unchecked, so a bad
file may end the process. It is the model's own."""


def is_pickle(path: Path) -> bool:
    """By the name: nothing else is opened as a pickle."""
    return path.suffix.lower() in PICKLES


def read_skops(config: ModelConfig, path: Path) -> Any:
    """Raises LoadFailed, which names the types that are not known."""
    if not zipfile.is_zipfile(path):
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' is no skops file; it is {describe_content(path)}"
        )
    named = {name.strip() for name in parameter(config, TRUSTED_TYPES).split(",")} - {""}
    trusted = named | DATA_TYPES
    try:
        from skops import io

        unknown = sorted(set(io.get_untrusted_types(file=path)) - trusted)
        if not unknown:
            return io.load(path, trusted=sorted(trusted))
    except ModuleNotFoundError as error:
        raise _missing(config, path, error) from error
    # Reading builds objects of many classes, which raise what they like.
    except Exception as error:
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' could not be read by skops: "
            f"{type(error).__name__}: {error}"
        ) from error
    raise _refuse_types(config, path, unknown)


def _refuse_types(config: ModelConfig, path: Path, names: list[str]) -> LoadFailed:
    return LoadFailed(
        f"model '{config.name}': '{path.name}' holds types that are not known to be harmless: "
        f"{', '.join(names)}. If you know what they do, name them in the config: parameters {{ "
        f'key: "{TRUSTED_TYPES}" value {{ string_value: "{",".join(names)}" }} }}'
    )


def read_pickle(config: ModelConfig, path: Path) -> Any:
    """Runs what the file says. Raises LoadFailed."""
    try:
        import joblib

        return joblib.load(path)
    except ModuleNotFoundError as error:
        raise _missing(config, path, error) from error
    except AttributeError as error:
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' needs a class that is not there ({error}). One "
            "of a notebook or script has to be in a module of its own, beside the model file, when "
            "the model is pickled"
        ) from error
    # Unpickling raises whatever the pickled objects do.
    except Exception as error:
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' could not be unpickled (it is "
            f"{describe_content(path)}): {type(error).__name__}: {error}"
        ) from error


def _missing(config: ModelConfig, path: Path, error: ModuleNotFoundError) -> LoadFailed:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    fix = f": pip install 'trivet[{extra}]'" if extra else ""
    return LoadFailed(
        f"model '{config.name}': '{path.name}' needs the module '{error.name}', which is not "
        f"installed here{fix}"
    )
