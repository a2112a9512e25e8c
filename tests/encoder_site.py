"""An encoder's instance without a server, and what it answers."""

from pathlib import Path
from typing import Any

import numpy as np

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    Instance,
    ModelFiles,
    ParameterValue,
    Placement,
    Tensor,
)
from trivet.backends.registry import find_backend
from trivet.protos.model_config_pb2 import ModelConfig

Answer = dict[str, Any]


def config_of(folder: Path, **parameters: str) -> ModelConfig:
    """The config that a version folder gets; raises InvalidConfig."""
    config = ModelConfig(name=folder.parent.name)
    for name, text in parameters.items():
        config.parameters[name].string_value = text
    files = ModelFiles(folder.parent, 1)
    return find_backend(config, files).backend.complete(config, files)


def open_encoder(folder: Path, **parameters: str) -> Instance:
    """The instance of a version folder `<model>/1`."""
    config = config_of(folder, **parameters)
    files = ModelFiles(folder.parent, 1)
    placement = Placement("m_0_0", "KIND_CPU", 0, 1)
    return find_backend(config, files).backend.open(config, files, placement)


def request(
    *texts: str,
    pairs: tuple[str, ...] = (),
    ids: list[list[int]] | None = None,
    outputs: tuple[str, ...] = (),
    **parameters: ParameterValue,
) -> CheckedRequest:
    """What the server would hand over."""
    inputs = {}
    if ids is not None:
        inputs["input_ids"] = Tensor.of("input_ids", np.array(ids, np.int64))
    if texts:
        inputs["text"] = Tensor.of("text", rows(texts))
    if pairs:
        inputs["text_pair"] = Tensor.of("text_pair", rows(pairs))
    size = len(texts) or len(ids or [()])
    return CheckedRequest("m", 1, "", inputs, outputs, parameters, batch_size=size)


def rows(texts: tuple[str, ...]) -> np.ndarray:
    return np.array([[each.encode()] for each in texts], dtype=object)


def run(instance: Instance, *requests: CheckedRequest) -> Batch:
    """One batch of them."""
    batch = Batch(requests, batching=True)
    instance.execute(batch)
    return batch


def answer(instance: Instance, *texts: str, **more: Any) -> Answer:
    """All outputs of one request by name. Raises its error."""
    batch = run(instance, request(*texts, **more))
    for error in batch.errors.values():
        raise error
    return {tensor.name: tensor.numpy() for tensor in batch.outputs[0]}
