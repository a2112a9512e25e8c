"""Encoders of each task whose answers are fixed by their shapes, behind the core that echoes."""

from functools import partial
from typing import Any

import numpy as np
from http_site import FakeCore, spec

from trivet.backends.api import CheckedRequest, DataType, InferResponse, Signature, Sink, Tensor
from trivet.backends.api.encoder import EncoderInfo, Task
from trivet.backends.encoder.heads import outputs_of
from trivet.protos.model_config_pb2 import ModelConfig

TASKS = {"vectors": Task.EMBED, "labels": Task.CLASSIFY, "pairs": Task.SCORE, "tags": Task.TOKENS}
_LABELS = {
    Task.EMBED: (),
    Task.CLASSIFY: ("bad", "good"),
    Task.SCORE: ("LABEL_0",),
    Task.TOKENS: ("O", "B-X"),
}
NUM_TOKENS = 3
"""Of every text."""
_INPUTS = (
    spec("text", DataType.BYTES, 1, optional=True),
    spec("text_pair", DataType.BYTES, 1, optional=True),
    spec("input_ids", DataType.INT64, -1, optional=True),
)


class EncodingCore(FakeCore):
    """With one encoder of each task."""

    def __init__(self, models: dict[str, Any]) -> None:
        """`models` are those that generate text."""
        super().__init__(models)
        self._infos = {name: _info(task) for name, task in TASKS.items()}
        for name, info in self._infos.items():
            inputs = {each.name: each for each in _INPUTS}
            outputs = {
                output: spec(output, kind, *dims)
                for output, kind, dims in outputs_of(info.task, info)
            }
            self.signatures[name] = Signature(inputs, outputs, 64, decoupled=False)
            self.responses[name] = partial(_answer, info)

    def encoders(self) -> dict[str, EncoderInfo]:
        return self._infos

    def _config(self, name: str) -> ModelConfig:
        config = super()._config(name)
        if name in self._infos:
            self._infos[name].write(config)
        return config


def _info(task: Task) -> EncoderInfo:
    return EncoderInfo(
        task,
        max_tokens=32,
        max_text_bytes=4096,
        batch_tokens=512,
        vocabulary_size=100,
        dtype="float32",
        architecture="Scripted",
        pooling="mean" if task is Task.EMBED else "",
        dimensions=4 if task is Task.EMBED else 0,
        labels=_LABELS[task],
        activation="softmax",
    )


def _answer(info: EncoderInfo, request: CheckedRequest, sink: Sink) -> None:
    rows = next(iter(request.inputs.values())).shape[0]
    outputs = [
        Tensor.of(name, _values(name, kind, (rows, *dims)))
        for name, kind, dims in outputs_of(info.task, info)
        if name in request.output_names
    ]
    sink.send(
        InferResponse(request.model_name, request.model_version, request.id, outputs), final=True
    )


def _values(name: str, kind: DataType, dims: tuple[int, ...]) -> np.ndarray:
    shape = tuple(NUM_TOKENS if size < 0 else size for size in dims)
    if kind is DataType.BYTES:
        return np.full(shape, b"good" if name == "label" else b"[]", dtype=object)
    values = np.full(shape, NUM_TOKENS if name == "num_tokens" else 0.5)
    return values.astype(kind.dtype)
