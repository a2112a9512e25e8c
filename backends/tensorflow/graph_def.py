"""TensorFlow 1's frozen graphs: what a config must say of one, since the file does not."""

import json
from pathlib import Path

from trivet.backends.api import InvalidConfig, ModelFiles, parameter
from trivet.backends.tensorflow.about import GRAPH_FILE, GRAPH_PLATFORM, TENSORFLOW
from trivet.protos.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

_INIT_OPS = "TF_INIT_OPS_FILE"


def is_graph_def(config: ModelConfig, files: ModelFiles) -> bool:
    """By `platform`, else by what lies there."""
    if config.platform:
        return config.platform == GRAPH_PLATFORM
    name = config.default_model_filename
    if name:
        return Path(name).suffix == Path(GRAPH_FILE).suffix
    there = {path.name for path in files.entries()}
    return GRAPH_FILE in there and there.isdisjoint(set(TENSORFLOW.model_files) - {GRAPH_FILE})


def complete_graph_def(config: ModelConfig, files: ModelFiles) -> ModelConfig:
    """The config with its platform. Raises InvalidConfig where it does not describe the model."""
    files.artifact(config, GRAPH_FILE)
    tensors: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    described = config.input and config.output
    if not described or not all(tensor.data_type and tensor.dims for tensor in tensors):
        raise InvalidConfig(
            f"model '{config.name}': a GraphDef ('{GRAPH_FILE}') does not say what goes in and "
            "out; list input and output with data_type and dims in config.pbtxt, or save the "
            "model as a SavedModel, which says them"
        )
    completed = ModelConfig()
    completed.CopyFrom(config)
    completed.platform = GRAPH_PLATFORM
    return completed


def initial_operations(config: ModelConfig, files: ModelFiles) -> list[str]:
    """What is to run once before the first request: Triton's JSON file, in the version or the
    model's folder. Raises InvalidConfig."""
    name = parameter(config, _INIT_OPS)
    if not name:
        return []
    in_version = (files.version_dir / name).exists()
    path = files.inside(files.version_dir if in_version else files.model_dir, name)
    try:
        operations = json.loads(path.read_bytes())["init_ops"]
    except (ValueError, KeyError, TypeError):
        operations = None
    if not isinstance(operations, list) or not all(isinstance(each, str) for each in operations):
        raise InvalidConfig(
            f"model '{config.name}': '{name}' ({_INIT_OPS}) must be JSON like "
            '{"init_ops": ["init"]}'
        )
    return operations
