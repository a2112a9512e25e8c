"""Models and ensembles in one event loop, without a server: what goes between steps is in sight."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from fakes import CountingSink
from made_models import made_model
from patience import patience

from trivet.backends.api import (
    Batch,
    CancelToken,
    CheckedRequest,
    DataType,
    InferRequest,
    InferResponse,
    ModelFiles,
    Placement,
    RequestContext,
    Signature,
    Tensor,
)
from trivet.ensembles.backend import BACKEND, EnsembleInstance
from trivet.ensembles.executor import EnsembleExecutor
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.catalog import RegistryCatalog
from trivet.server.models.dispatcher import RequestDispatcher
from trivet.server.models.observer import StatisticsObserver
from trivet.server.models.registry import Registry
from trivet.server.models.schedulers import schedule_of
from trivet.server.repository.config import parse_config
from trivet.server.scheduling.batching import BatchingExecutor
from trivet.server.scheduling.statistics import ModelStatistics

Arrays = dict[str, np.ndarray]
Function = Callable[[Arrays], Arrays]


@dataclass
class FunctionInstance:
    """Computes a function of the gathered inputs; remembers what it was given and gave."""

    config: ModelConfig
    function: Function
    requests: list[CheckedRequest] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    gathered: list[Arrays] = field(default_factory=list)
    made: list[Arrays] = field(default_factory=list)
    keeps: bool = True

    def execute(self, batch: Batch) -> None:
        given = {tensor.name: batch.gather(tensor.name) for tensor in self.config.input}
        inputs = {name: values for name, values in given.items() if values is not None}
        outputs = self.function(inputs)
        for name, values in outputs.items():
            batch.scatter(name, values)
        if self.keeps:
            self.requests += batch.requests
            self.batches.append(batch)
            self.gathered.append(inputs)
            self.made.append(outputs)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


@dataclass
class StreamInstance:
    """A decoupled model: answers with what the function yields."""

    function: Callable[[Arrays], Sequence[Arrays]]
    requests: list[CheckedRequest] = field(default_factory=list)

    def execute(self, batch: Batch) -> None:
        self.requests += batch.requests
        for request, sender in zip(batch.requests, batch.senders, strict=True):
            given = {name: tensor.numpy() for name, tensor in request.inputs.items()}
            for outputs in self.function(given):
                sender.send([Tensor.of(name, values) for name, values in outputs.items()])
            sender.finish()

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Room:
    """A registry that the test fills, and the dispatcher over it."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.dispatcher = RequestDispatcher(self.registry, cast(Any, None))
        self.executors: list[Any] = []
        self.statistics: dict[str, ModelStatistics] = {}

    def model(self, name: str, config: str, function: Function) -> FunctionInstance:
        """A model whose outputs are a function of its inputs."""
        instance = FunctionInstance(parse_config(config, name), function)
        self.open(name, instance.config, instance)
        return instance

    def stream(
        self, name: str, config: str, function: Callable[[Arrays], Sequence[Arrays]]
    ) -> StreamInstance:
        """A decoupled model."""
        instance = StreamInstance(function)
        parsed = parse_config(config, name)
        parsed.model_transaction_policy.decoupled = True
        self.open(name, parsed, instance)
        return instance

    def open(self, name: str, config: ModelConfig, instance: Any) -> None:
        """A model of any instance."""
        statistics = self.statistics[name] = ModelStatistics(name, 1)
        executor = BatchingExecutor(
            (name, 1),
            Signature.from_config(config),
            [(name, instance)],
            schedule_of(config, 0),
            statistics,
        )
        self.publish(name, config, executor)

    def publish(self, name: str, config: ModelConfig, executor: Any) -> None:
        """A model with any executor."""
        self.executors.append(executor)
        signature = Signature.from_config(config)
        self.registry.publish(made_model(name, signature, executor, config=config))

    def ensemble(self, name: str, config: str) -> EnsembleExecutor:
        """An ensemble of the models that are there. Raises InvalidConfig."""
        given = parse_config(config, name)
        given.name = name
        backend = BACKEND.composed(RegistryCatalog(self.registry))
        files = ModelFiles(Path("/nowhere") / name, 1)
        completed = backend.complete(given, files)
        instance = backend.open(completed, files, Placement(name, "KIND_CPU", 0, 1))
        assert isinstance(instance, EnsembleInstance)
        statistics = self.statistics[name] = ModelStatistics(name, 1)
        instance.connect(self.dispatcher)
        instance.observe(StatisticsObserver(statistics))
        executor = instance.make_executor()
        assert isinstance(executor, EnsembleExecutor)
        self.publish(name, completed, executor)
        return executor

    def ask(
        self,
        name: str,
        inputs: Mapping[str, np.ndarray],
        outputs: tuple[str, ...] = (),
        *,
        cancel: CancelToken | None = None,
        **fields: Any,
    ) -> CountingSink:
        """Begins a request."""
        sink = CountingSink()
        tensors = {key: Tensor.of(key, values) for key, values in inputs.items()}
        context = RequestContext(cancel or CancelToken(), **_taken(fields, RequestContext))
        request = InferRequest(name, None, "id", tensors, outputs, **fields)
        self.dispatcher.infer(request, context, sink)
        return sink

    async def infer(
        self, name: str, inputs: Mapping[str, np.ndarray], outputs: tuple[str, ...] = (), **f: Any
    ) -> Arrays:
        """The one answer to a request."""
        sink = self.ask(name, inputs, outputs, **f)
        await sink.wait()
        assert sink.error is None, sink.error
        (response,) = sink.responses
        return arrays(response)

    async def close(self) -> None:
        """Ends all models."""
        for executor in reversed(self.executors):
            await executor.close()


def _taken(fields: dict[str, Any], kind: type) -> dict[str, Any]:
    """Those that are fields of the kind, which are taken out."""
    return {name: fields.pop(name) for name in kind.__dataclass_fields__ if name in fields}  # type: ignore[attr-defined] # a dataclass


def arrays(response: InferResponse) -> Arrays:
    """The outputs of a response."""
    return {tensor.name: tensor.numpy() for tensor in response.outputs}


def config(
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    *,
    batch: int = 8,
    more: str = "dynamic_batching {}",
) -> str:
    """A model's config: name -> "FP32 2,3", with "?" at the end for an optional input."""
    lines = [f"max_batch_size: {batch}", more if batch else ""]
    for role, tensors in (
        ("input", inputs or {"IN": "FP32 2"}),
        ("output", outputs or {"OUT": "FP32 2"}),
    ):
        for name, text in tensors.items():
            datatype, dims = text.rstrip("?").split()
            optional = "optional: true" if text.endswith("?") else ""
            datatype = DataType(datatype).config_name
            lines.append(
                f'{role} {{ name: "{name}" data_type: {datatype} dims: [{dims}] {optional} }}'
            )
    return "\n".join(lines)


def step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """A step of an ensemble's config."""
    maps = [f'input_map {{ key: "{k}" value: "{v}" }}' for k, v in inputs.items()]
    maps += [f'output_map {{ key: "{k}" value: "{v}" }}' for k, v in outputs.items()]
    return f'step {{ model_name: "{model}" model_version: -1 {" ".join(maps)} }}'


def ensemble(*steps: str, more: str = "", **settings: str) -> str:
    """An ensemble's config; settings are named `model__setting`, or `step0__setting`."""
    given = [
        f'parameters {{ key: "step.{name.removeprefix("step").replace("__", ".")}" '
        f"value {{ string_value: {_quoted(value)} }} }}"
        for name, value in settings.items()
    ]
    body = "\n".join(steps)
    return f'platform: "ensemble"\n{more}\nensemble_scheduling {{ {body} }}\n' + "\n".join(given)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def address(array: np.ndarray) -> int:
    """Where an array's memory begins."""
    return int(array.__array_interface__["data"][0])


async def until(condition: Callable[[], bool], what: str) -> None:
    """Lets the loop turn until the condition holds."""
    deadline = time.monotonic() + patience()
    while not condition():
        assert time.monotonic() < deadline, f"never {what}"
        await asyncio.sleep(0.001)
