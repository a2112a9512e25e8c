"""Loading and unloading of models by user code: `pb_utils.load_model` and its like."""

from collections.abc import Mapping

from trivet.backends.python.model_api.errors import TritonModelException
from trivet.backends.python.model_api.nested import current, wait

_CONFIG = "config"


def load_model(model_name: str, files: Mapping[str, str | bytes] | None = None) -> None:
    """Loads or reloads a model of the repository; returns when it serves.

    `files`: {"config": JSON} replaces its config file for this load. Raises TritonModelException,
    among others unless the server runs with --model-control-mode=explicit.
    """
    given = dict(files or {})
    config = given.pop(_CONFIG, None)
    if given:
        raise TritonModelException(
            f"load_model('{model_name}'): files may hold 'config' only, not {sorted(given)}; put "
            "model files into the repository"
        )
    text = config.decode() if isinstance(config, bytes) else config
    wait(current().asker.load(model_name, text))


def unload_model(model_name: str, unload_dependents: bool = False) -> None:  # noqa: FBT001, FBT002
    """Takes a model out of service; returns when it accepts no more requests.

    Raises TritonModelException, among others unless the control mode is explicit.
    """
    wait(current().asker.unload(model_name, unload_dependents=unload_dependents))


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether a version, or the newest, can compute now."""
    try:
        version = int(model_version) if model_version else None
    except ValueError:
        raise TritonModelException(
            f"is_model_ready('{model_name}'): model_version is '{model_version}', not a number"
        ) from None
    return wait(current().asker.is_ready(model_name, version))
