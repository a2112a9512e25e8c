"""Which file of a version is the trees, of which library, and opening it."""

from pathlib import Path

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, parameter
from trivet.backends.api.content import describe_content
from trivet.backends.fil.about import ABOUT, BOOSTER, is_lightgbm_text, is_xgboost_json
from trivet.backends.fil.forest import Forest
from trivet.protos.model_config_pb2 import ModelConfig

MODEL_TYPE = "model_type"
_TREELITE = "treelite_checkpoint"
_NAMES = {
    "xgboost": ("xgboost.model",),
    "xgboost_json": ("xgboost.json", "model.json"),
    "xgboost_ubj": ("xgboost.ubj", "model.ubj"),
    "lightgbm": ("model.txt",),
    "catboost": ("model.cbm",),
    _TREELITE: ("checkpoint.tl",),
}
"""By Triton's parameter `model_type` ("catboost" is ours): the names of the file."""
_LIBRARIES = {
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".model": "xgboost",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
    ".cbm": "catboost",
    ".cb": "catboost",
    ".tl": _TREELITE,
}
_EXTRAS = ("catboost", "lightgbm", "xgboost")


def find_file(config: ModelConfig, files: ModelFiles) -> Path:
    """The model file. Raises InvalidConfig."""
    given = parameter(config, MODEL_TYPE)
    if given and given not in _NAMES:
        raise InvalidConfig(
            f"model '{config.name}': parameter {MODEL_TYPE} is '{given}', but must be one of "
            f"{', '.join(_NAMES)}"
        )
    names = _NAMES.get(given, (*ABOUT.model_files, *ABOUT.shared_names))
    present = (name for name in names if (files.version_dir / name).exists())
    return files.artifact(config, next(present, names[0]))


def open_forest(config: ModelConfig, path: Path) -> Forest:
    """Raises LoadFailed, also where the library is not installed."""
    library = _library(config, path)
    try:
        return _open(library, path, is_triton=MODEL_TYPE in config.parameters)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' needs the package '{error.name}', which is not "
            f"installed: pip install 'trivet[{error.name}]'"
        ) from error
    except LoadFailed as error:
        raise LoadFailed(f"model '{config.name}': {error.message}") from error


def _library(config: ModelConfig, path: Path) -> str:
    given = parameter(config, MODEL_TYPE)
    library = given.partition("_")[0] if given and given != _TREELITE else given
    library = library or _LIBRARIES.get(path.suffix.lower(), "") or _by_content(path)
    if library == _TREELITE:
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' is a checkpoint of Treelite, which is not read "
            "here: put the file there that it was made of (XGBoost's model.ubj, LightGBM's "
            "model.txt), or the scikit-learn model as model.skops (skops.io.dump)"
        )
    if not library:
        raise LoadFailed(
            f"model '{config.name}': '{path.name}' is no file of XGBoost, LightGBM or CatBoost; it "
            f"is {describe_content(path)}. Parameter {MODEL_TYPE} names its kind: "
            f"{', '.join(_NAMES)}"
        )
    return library


def _by_content(path: Path) -> str:
    with path.open("rb") as file:
        text = file.read(200).decode(errors="replace")
    if is_lightgbm_text(text):
        return "lightgbm"
    # Of a booster XGBoost itself tells what is wrong.
    return "xgboost" if is_xgboost_json(text) or path.suffix.lower() == BOOSTER else ""


def _open(library: str, path: Path, *, is_triton: bool) -> Forest:
    # Each is imported by the first model that needs it.
    if library == "xgboost":
        from trivet.backends.fil.xgboost_forest import open_xgboost

        return open_xgboost(path, all_iterations=is_triton)
    if library == "lightgbm":
        from trivet.backends.fil.lightgbm_forest import open_lightgbm

        return open_lightgbm(path)
    from trivet.backends.fil.catboost_forest import open_catboost

    return open_catboost(path)
