"""Which folder, graph and signature of a SavedModel a config means. Pure but for names on disk."""

from pathlib import Path
from typing import NamedTuple

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, parameter
from trivet.backends.api.content import describe_content
from trivet.backends.api.protobuf_file import MalformedMessage
from trivet.backends.tensorflow.about import SAVED_MODEL_FILE, TENSORFLOW
from trivet.backends.tensorflow.saved_model import MetaGraph, Signature, read_saved_model
from trivet.protos.model_config_pb2 import ModelConfig

FOLDER = TENSORFLOW.model_files[0]
_USUAL_SIGNATURE, _USUAL_TAG = "serving_default", "serve"


class Chosen(NamedTuple):
    """What of the folder is served."""

    folder: Path
    tags: tuple[str, ...]
    name: str
    """Of the signature."""
    signature: Signature


def choose(config: ModelConfig, files: ModelFiles) -> Chosen:
    """Raises InvalidConfig for what the config names, LoadFailed for files that are wrong."""
    folder = _locate(config, files)
    graph = _graph(config, _read(config, files, folder))
    name = _signature_name(config, graph)
    signature = graph.signatures[name]
    if signature.unsupported:
        raise InvalidConfig(
            f"model '{config.name}': signature '{name}' has the tensors "
            f"{list(signature.unsupported)}, of types that cannot be sent (complex numbers, "
            "resources, sparse or ragged tensors); save a signature of plain tensors"
        )
    return Chosen(folder, graph.tags, name, signature)


def _locate(config: ModelConfig, files: ModelFiles) -> Path:
    """The folder that has saved_model.pb in it."""
    name = config.default_model_filename
    if not name and not (files.version_dir / FOLDER).exists():
        if not (files.version_dir / SAVED_MODEL_FILE).exists():
            raise _none_there(config, files)
        name = SAVED_MODEL_FILE
    path = files.artifact(config, name or FOLDER) if name != SAVED_MODEL_FILE else None
    folder = files.inside(files.version_dir, name).parent if path is None else path
    if not folder.is_dir():
        raise LoadFailed(
            f"model '{config.name}' version {files.version}: '{folder.name}' is a file "
            f"({describe_content(folder)}); a SavedModel is a folder with {SAVED_MODEL_FILE} in it"
        )
    return folder


def _none_there(config: ModelConfig, files: ModelFiles) -> InvalidConfig:
    present = sorted(path.name for path in files.version_dir.glob("*"))
    holds = f"it holds {present}" if present else "it is empty"
    return InvalidConfig(
        f"model '{config.name}' version {files.version}: the folder has no SavedModel "
        f"('{FOLDER}', or {SAVED_MODEL_FILE} itself); {holds}. If the model is of another kind, "
        "leave `backend` and `platform` out of its config: its files tell them"
    )


def _read(config: ModelConfig, files: ModelFiles, folder: Path) -> list[MetaGraph]:
    path = folder / SAVED_MODEL_FILE
    where = f"model '{config.name}' version {files.version}"
    if not path.exists():
        is_text = (folder / "saved_model.pbtxt").exists()
        found = "saved_model.pbtxt, the graph as text" if is_text else "no such file"
        raise LoadFailed(
            f"{where}: '{folder.name}' should have {SAVED_MODEL_FILE}, but has {found}; save it "
            "with tf.saved_model.save, or with model.export of Keras"
        )
    try:
        return read_saved_model(path)
    except (MalformedMessage, UnicodeDecodeError) as error:
        raise LoadFailed(
            f"{where}: '{SAVED_MODEL_FILE}' is not a whole SavedModel ({error}); it is "
            f"{describe_content(path)}. Copy the folder again"
        ) from error


def _graph(config: ModelConfig, graphs: list[MetaGraph]) -> MetaGraph:
    asked = parameter(config, "TF_GRAPH_TAG")
    tag = asked or _USUAL_TAG
    for graph in graphs:
        if tag in graph.tags:
            return graph
    if len(graphs) == 1 and not asked:
        return graphs[0]
    raise InvalidConfig(
        f"model '{config.name}': no graph of {SAVED_MODEL_FILE} has the tag '{tag}' (parameter "
        f"TF_GRAPH_TAG); the graphs have {[list(graph.tags) for graph in graphs]}"
    )


def _signature_name(config: ModelConfig, graph: MetaGraph) -> str:
    """The one asked for, else the usual one, else the only one."""
    names = list(graph.signatures)
    asked = parameter(config, "TF_SIGNATURE_DEF")
    if (name := asked or _USUAL_SIGNATURE) in names:
        return name
    if len(names) == 1 and not asked:
        return names[0]
    if not names:
        raise InvalidConfig(
            f"model '{config.name}': the SavedModel has no signature, so nothing says what goes "
            "in and out; save it with signatures={'serving_default': function}, or with "
            "model.export of Keras"
        )
    raise InvalidConfig(
        f"model '{config.name}': the SavedModel has no signature '{name}', but {names}; name one "
        "of them in parameter TF_SIGNATURE_DEF"
    )
