"""Opens scikit-learn's models, and what has their methods.

Models run in processes of their own: their threads are the process's, and Python code that computes
would hold up the server. Pickles run there only, whatever parameter `isolation` says.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

from trivet.backends.api import (
    Instance,
    LoadFailed,
    ModelFiles,
    Pickles,
    Placement,
    refuse_pickle,
)
from trivet.backends.process import Isolation, complete_isolated, isolation_of, open_isolated
from trivet.backends.sklearn.about import ABOUT
from trivet.backends.sklearn.files import SKOPS_FIX, is_pickle, read_pickle, read_skops
from trivet.backends.tabular.estimator import METHODS, EstimatorInstance, complete_estimator
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

_FRAMEWORK = "scikit-learn"
_CLASSES = "classes"


class SklearnBackend:
    """`backend: "sklearn"`."""

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig for a config, LoadFailed for a file that is wrong."""
        path = _artifact(config, files)
        if _is_apart(config, files, path):
            return complete_isolated(ABOUT.word, config, files)
        return _complete(config, _read(config, path))

    def starts_processes(self, config: ModelConfig) -> bool:
        """See StartsProcesses."""
        return isolation_of(config, ABOUT) is Isolation.PROCESS

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Raises LoadFailed, InvalidConfig."""
        path = _artifact(config, files)
        if _is_apart(config, files, path):
            return open_isolated(ABOUT.word, config, files, placement)
        model = _read(config, path)
        _share_threads(model, max(1, placement.cpu_threads))
        # Said at each call of a model that was fitted with a table and gets a matrix.
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        # Without auto-completion nobody has compared the config with the model yet.
        return EstimatorInstance(model, _complete(config, model), _FRAMEWORK)


def _artifact(config: ModelConfig, files: ModelFiles) -> Path:
    names = ABOUT.model_files
    present = (name for name in names if (files.version_dir / name).exists())
    return files.artifact(config, next(present, names[0]))


def _is_apart(config: ModelConfig, files: ModelFiles, path: Path) -> bool:
    """Whether another process is to do it. Raises LoadFailed for a pickle that nobody allowed."""
    if not is_pickle(path):
        return isolation_of(config, ABOUT) is Isolation.PROCESS
    if files.pickles is Pickles.REFUSED:
        raise refuse_pickle(config.name, path, what="a pickle", fix=SKOPS_FIX)
    return files.pickles is Pickles.APART


def _read(config: ModelConfig, path: Path) -> Any:
    model = read_pickle(config, path) if is_pickle(path) else read_skops(config, path)
    if not any(hasattr(model, method) for method in METHODS):
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' holds a {type(model).__name__}, which has none "
            f"of the methods {', '.join(METHODS)}"
        )
    return model


def _complete(config: ModelConfig, model: Any) -> ModelConfig:
    completed = complete_estimator(config, model, _FRAMEWORK)
    classes = getattr(model, "classes_", None)
    if classes is not None and hasattr(classes, "tolist") and _CLASSES not in completed.parameters:
        text = json.dumps(classes.tolist(), ensure_ascii=False, default=str)
        completed.parameters[_CLASSES].string_value = text
    return completed


def _share_threads(model: Any, num_threads: int) -> None:
    """An estimator fitted with n_jobs=-1 would take every core for itself."""
    if not hasattr(model, "get_params") or not hasattr(model, "set_params"):
        return
    try:
        own = [name for name in model.get_params() if name.split("__")[-1] == "n_jobs"]
        model.set_params(**dict.fromkeys(own, num_threads))
    # Objects of other libraries that look like estimators.
    except (AttributeError, TypeError, ValueError) as error:
        log.debug("the threads of a %s stay as they are: %s", type(model).__name__, error)


BACKEND = SklearnBackend()
