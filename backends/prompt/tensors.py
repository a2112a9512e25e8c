"""The tensor form of a prompt: that of its base, and an input for each variable."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from trivet.backends.api import (
    CheckedRequest,
    DataType,
    InvalidConfig,
    InvalidRequest,
    ParameterValue,
)
from trivet.backends.generating.tensor_form import (
    INPUTS,
    TextRequest,
    parse_tensors,
    with_tensors,
)
from trivet.backends.prompt.about import PROMPT_FILE
from trivet.backends.prompt.prompt_file import PromptFile, Value
from trivet.protos.model_config_pb2 import ModelConfig

_SAMPLING = "sampling_parameters"


def with_variables(config: ModelConfig, file: PromptFile) -> ModelConfig:
    """A copy of a config with all inputs and outputs. Raises InvalidConfig."""
    completed = with_tensors(config)
    taken = {name for name, _, _ in INPUTS}
    for name, usual in file.variables.items():
        if name == file.input:
            continue
        if name in taken:
            raise InvalidConfig(
                f"{PROMPT_FILE}: variable '{name}' is called as an input of every model that "
                "generates text; choose another name"
            )
        completed.input.add(
            name=name, data_type=DataType.BYTES.to_config(), dims=[1], optional=usual is not None
        )
    return completed


def variables_in(request: CheckedRequest, file: PromptFile) -> dict[str, Value]:
    """Those that a request gives. Raises InvalidRequest."""
    found: dict[str, Value] = {}
    for name in file.variables:
        tensor = request.inputs.get(name)
        if tensor is None or name == file.input:
            continue
        values = tensor.numpy().reshape(-1)
        if len(values) != 1:
            raise InvalidRequest(f"input '{name}' has {len(values)} elements; it holds exactly 1")
        try:
            found[name] = bytes(values[0]).decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"input '{name}' is not UTF-8 text") from None
    return found


def parse_with(request: CheckedRequest, file: PromptFile) -> TextRequest:
    """What the tensors say, and the prompt where they do not. Raises InvalidRequest."""
    parsed = parse_tensors(request)
    said = _said(request)
    values: dict[str, Any] = {
        name: value for name, value in file.sampling.items() if name not in said
    }
    return replace(parsed, sampling=replace(parsed.sampling, **values)) if values else parsed


def _said(request: CheckedRequest) -> Mapping[str, ParameterValue | Any]:
    """The sampling parameters that a request gives; they have been checked."""
    tensor = request.inputs.get(_SAMPLING)
    if tensor is None:
        text = request.parameters.get(_SAMPLING)
        given = str(text) if text else ""
    else:
        given = bytes(tensor.numpy().reshape(-1)[0]).decode()
    return {**request.parameters, **(orjson.loads(given) if given else {})}
