"""Which files of a hub's repository a model needs, and where they lie in its version folder. Pure.

Only data is taken, by a list of suffixes: what is no file of a known format stays where it is, and
so do pickles and code, which would run here.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from trivet.server.remote.source import RemoteError

Places = Mapping[str, str]
"""By path in the version folder: the path in the hub's repository."""

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".npy")
CODE = (".py", ".so", ".dll", ".dylib", ".pt2", ".jar", ".engine", ".plan")
_SAFETENSORS, _GGUF, _ONNX = ".safetensors", ".gguf", ".onnx"
_OTHERS = (".keras", ".h5", ".hdf5", ".tflite", ".skops", ".ubj", ".cbm", ".xml")
_BESIDE = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab")
"""Configs and tokenizers. Models of XGBoost and LightGBM are called so, too."""
_ORDERS = "requirements.txt"
"""Of the name of a file that says what is to be installed."""
_MAIN_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
"""The names that are loaded; other safetensors beside them are the same weights once more."""
_INDEX = ".safetensors.index.json"
"""Of the file that says in which other file each weight is."""
_MODULE = re.compile(r"\d+_\w+")
"""A folder of sentence-transformers: 1_Pooling, 2_Dense."""
_TEMPLATES = "additional_chat_templates"
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
_NO_MODEL = re.compile(r"(mmproj|imatrix)[-_.]", re.IGNORECASE)
"""GGUF files beside a model: of its image encoder, and what a quantisation was measured with."""
_USUAL_ONNX = ("model.onnx", "onnx/model.onnx")
_NUM_LISTED = 8


def choose(paths: Collection[str], wanted: str, where: str) -> Places:
    """`wanted`: the file that the address names, if any; `where`: the address without it, for error
    texts. Raises RemoteError where nothing can be served."""
    seen = [path for path in paths if not _is_hidden(path) and not path.endswith(_ORDERS)]
    if wanted:
        return _named(seen, wanted, where)
    if "model_index.json" in seen:
        raise RemoteError(f"{where} is a pipeline of diffusers, and no backend makes images")
    for find in (_safetensors, _gguf, _onnx, _saved_model, _other):
        if found := find(seen, where):
            return found
    raise RemoteError(_why_nothing(seen, where))


def _safetensors(paths: Collection[str], _: str) -> Places:
    found = [path for path in paths if path.endswith(_SAFETENSORS) and _is_near(path)]
    if not found:
        return {}
    folders = {PurePosixPath(path).parent for path in found if _is_main(path)}
    weights = [path for path in found if _is_main(path) or _folder(path) not in folders]
    return _as_they_lie([*weights, *_beside(paths)])


def _is_main(path: str) -> bool:
    return _MAIN_WEIGHTS.fullmatch(PurePosixPath(path).name) is not None


def _gguf(paths: Collection[str], where: str) -> Places:
    models = _gguf_models(paths)
    if len(models) > 1:
        raise RemoteError(
            f"{where} holds {len(models)} models; name the file in the address, {where}/FILE: "
            f"{_listed(models)}"
        )
    return _gguf_parts(paths, models[0]) if models else {}


def _gguf_models(paths: Collection[str]) -> list[str]:
    """Of those in parts, the first."""
    return sorted(
        path
        for path in paths
        if path.endswith(_GGUF)
        and not _LATER_PART.search(path)
        and not _NO_MODEL.match(PurePosixPath(path).name)
    )


def _gguf_parts(paths: Collection[str], model: str) -> Places:
    stem = _PART.sub("", model)
    return _by_name(path for path in paths if path == model or _PART.sub("", path) == stem)


def _onnx(paths: Collection[str], where: str) -> Places:
    found = sorted(path for path in paths if path.endswith(_ONNX))
    usual = next((path for path in _USUAL_ONNX if path in found), "")
    if usual:
        return _as_they_lie([usual, *_data_of(usual, paths), *_beside(paths)])
    if len(found) > 1:
        raise RemoteError(
            f"{where} holds {len(found)} ONNX models, of which none is called model.onnx; name the "
            f"file in the address, {where}/FILE: {_listed(found)}"
        )
    return _lone_onnx(paths, found[0]) if found else {}


def _lone_onnx(paths: Collection[str], model: str) -> Places:
    """As model.onnx, which backends look for. It names its data by their own names."""
    data = _by_name(_data_of(model, paths))
    return {**_as_they_lie(_beside(paths)), **data, "model.onnx": model}


def _data_of(model: str, paths: Collection[str]) -> list[str]:
    """Weights beside an ONNX file: x.onnx_data, x.onnx.data, x.onnx_data_1."""
    return [path for path in paths if re.match(re.escape(model) + r"[._]data(_\d+)?$", path)]


def _saved_model(paths: Collection[str], where: str) -> Places:
    """A SavedModel of TensorFlow, with the folder that it lies in."""
    found = sorted(path for path in paths if PurePosixPath(path).name == "saved_model.pb")
    if len(found) > 1:
        raise RemoteError(
            f"{where} holds {len(found)} SavedModels, {_listed(found)}; name one: {where}/FILE"
        )
    return _of_saved_model(paths, found[0]) if found else {}


def _of_saved_model(paths: Collection[str], manifest: str) -> Places:
    root = PurePosixPath(manifest).parent
    inside = [path for path in paths if PurePosixPath(path).is_relative_to(root)]
    kept = [path for path in inside if not path.endswith((*PICKLES, *CODE))]
    return {f"model.savedmodel/{PurePosixPath(path).relative_to(root)}": path for path in kept}


def _other(paths: Collection[str], _: str) -> Places:
    """Models whose folder says which backend is theirs. A config alone is none."""
    top = [path for path in paths if "/" not in path]
    models = [path for path in top if path.endswith(_OTHERS)]
    graphs = {path.removesuffix(".xml") for path in models if path.endswith(".xml")}
    weights = [path for path in top if path.removesuffix(".bin") in graphs]  # of OpenVINO
    if not models and any(path.endswith((*PICKLES, *CODE)) for path in paths):
        return {}
    return _as_they_lie([*models, *weights, *(path for path in top if path.endswith(_BESIDE))])


def _named(paths: Collection[str], wanted: str, where: str) -> Places:
    if wanted.endswith((*PICKLES, *CODE)):
        raise RemoteError(
            f"{where}: '{wanted}' {_RUNS_CODE}; name a file of weights or a graph: safetensors, "
            "GGUF, ONNX"
        )
    if wanted not in paths:
        models = [path for path in paths if path.endswith((_GGUF, _ONNX, _SAFETENSORS, *_OTHERS))]
        there = f"; there is {_listed(sorted(models))}" if models else ""
        raise RemoteError(f"{where} has no file '{wanted}'{there}")
    if wanted.endswith(_GGUF):
        return _gguf_parts(paths, wanted)
    if wanted.endswith(_ONNX):
        return _lone_onnx(paths, wanted)
    if wanted.endswith("saved_model.pb"):
        return _of_saved_model(paths, wanted)
    if wanted.endswith(_SAFETENSORS):
        beside = (path for path in _beside(paths) if not path.endswith(_INDEX))
        return {**_as_they_lie(beside), "model.safetensors": wanted}
    return {**_as_they_lie(_beside(paths)), PurePosixPath(wanted).name: wanted}


# -- small things ----------------------------------------------------------------------------------


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _folder(path: str) -> PurePosixPath:
    return PurePosixPath(path).parent


def _is_near(path: str) -> bool:
    """Whether it lies where models are loaded from; folders such as onnx/ and original/ hold them
    once more."""
    folder = str(_folder(path))
    return folder == "." or _MODULE.fullmatch(folder) is not None


def _beside(paths: Collection[str]) -> list[str]:
    return [
        path
        for path in paths
        if path.endswith(_BESIDE) and (_is_near(path) or str(_folder(path)) == _TEMPLATES)
    ]


def _as_they_lie(paths: Iterable[str]) -> dict[str, str]:
    return {path: path for path in paths}


def _by_name(paths: Iterable[str]) -> dict[str, str]:
    return {PurePosixPath(path).name: path for path in paths}


def _listed(paths: Collection[str]) -> str:
    shown = ", ".join(list(paths)[:_NUM_LISTED])
    more = len(paths) - _NUM_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


_RUNS_CODE = "could run code here and is not fetched"


def _why_nothing(paths: Collection[str], where: str) -> str:
    pickles = sorted(path for path in paths if path.endswith(PICKLES))
    code = sorted(path for path in paths if path.endswith(CODE))
    if pickles:
        return (
            f"{where} has its weights as pickles alone ({_listed(pickles)}), and a pickle "
            f"{_RUNS_CODE}; serve a revision with safetensors, such as the pull request that "
            "https://huggingface.co/spaces/safetensors/convert opens (@refs/pr/NUMBER), or convert "
            "them yourself and serve the folder"
        )
    if code:
        return f"{where}: '{code[0]}' {_RUNS_CODE}, and there is no other model in it"
    return (
        f"{where} holds no model that is served from a hub: safetensors, GGUF, ONNX, SavedModel, "
        "Keras, TensorFlow Lite, skops, XGBoost, LightGBM, CatBoost or OpenVINO"
    )
