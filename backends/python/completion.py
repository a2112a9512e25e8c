"""Lets a model describe itself: runs its `auto_complete_config`."""

import ast
import logging
from pathlib import Path

import orjson

from trivet.backends.api import InvalidConfig, ModelFiles, UnreadableFiles, storage_fault_below
from trivet.backends.api.config import from_json, to_json_dict
from trivet.backends.python.loader import load_model_class
from trivet.backends.python.model_api.config import ModelConfig as UserConfig
from trivet.backends.python.model_api.errors import TritonModelException
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

_HOOK = "auto_complete_config"


def may_describe_itself(path: Path) -> bool:
    """Whether running the file could find the hook, judged without running it.

    Saves most models the second import of what they import. Raises InvalidConfig for a file that
    is not Python.
    """
    try:
        tree = ast.parse(path.read_bytes(), filename=path.name)
    except (SyntaxError, ValueError) as error:
        raise InvalidConfig(f"'{path.name}' is not a Python file: {error}") from error
    classes = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel"
    ]
    if len(classes) != 1 or classes[0].bases or classes[0].decorator_list:
        return True
    names = {node.name for node in ast.walk(classes[0]) if isinstance(node, ast.FunctionDef)}
    return _HOOK in names


def describe(path: Path, config: ModelConfig, files: ModelFiles) -> ModelConfig:
    """Imports the file and has it complete the config. Raises InvalidConfig, UnreadableFiles."""
    try:
        hook = getattr(load_model_class(path, config.name), _HOOK, None)
        if hook is None:
            return config
        described = hook(UserConfig(orjson.dumps(to_json_dict(config)).decode()))
    except InvalidConfig:
        raise
    except Exception as error:
        is_meant = isinstance(error, (TritonModelException, ValueError))
        reason = str(error) if is_meant else repr(error)
        text = f"{_HOOK} of model '{config.name}' failed: {reason}"
        if storage_fault_below(files.model_dir, error):
            raise UnreadableFiles(text) from None
        log.exception("%s of model '%s' failed", _HOOK, config.name)
        raise InvalidConfig(text) from None
    if not isinstance(described, UserConfig):
        raise InvalidConfig(
            f"{_HOOK} of model '{config.name}' must return the pb_utils.ModelConfig, not "
            f"{type(described).__name__}"
        )
    return from_json(orjson.dumps(described.as_dict()))
