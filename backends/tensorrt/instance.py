"""Runs batches through a TensorRT engine on one GPU."""

from collections.abc import Mapping, Sequence

import numpy as np

from trivet.backends.api import (
    Batch,
    CheckedRequest,
    CopyKind,
    DeviceArray,
    InvalidRequest,
    Shape,
    Tensor,
)
from trivet.backends.device.buckets import Bucket, StaticRun, fitting
from trivet.backends.device.lane import Lane
from trivet.backends.tensorrt.context import ALIGNMENT, EngineContext
from trivet.backends.tensorrt.graphs import capture
from trivet.backends.tensorrt.opened import OpenedEngine
from trivet.backends.tensorrt.profiles import choose_profile, holding, runs_of


class TensorRtInstance:
    """One instance: a stream, and a context for each profile and each CUDA graph."""

    def __init__(self, opened: OpenedEngine, lane: Lane, *, batching: bool) -> None:
        self._opened: OpenedEngine | None = opened
        self._lane = lane
        self._batching = batching
        engine = opened.description
        self._shape_inputs = [t for t in engine.inputs if t.is_shape_tensor]
        self._contexts = {number: opened.context(number, lane) for number in opened.profiles}
        self._graphs = [self._capture(bucket) for bucket in opened.buckets]

    def execute(self, batch: Batch) -> None:
        opened = self._opened
        assert opened is not None, "executed after close"
        with self._lane.computing():
            runs = self._runs(opened, batch)
            if len(runs) == 1:
                self._run(opened, batch)
            else:
                self._run_apart(opened, batch, runs)

    def _runs(self, opened: OpenedEngine, batch: Batch) -> list[range]:
        """The batch's requests, by those that are computed together: all, where one profile holds
        them. The policy that joined them knows the largest batch of any profile, but their other
        dimensions may be those of a profile for smaller ones."""
        requests = batch.requests
        if len(requests) == 1:
            return [range(1)]
        if self._shape_inputs and not self._agree(batch):
            return [range(index, index + 1) for index in range(len(requests))]
        if not batch.is_plain or not opened.description.profiles:
            return [range(len(requests))]
        return runs_of(
            [request.batch_size for request in requests],
            lambda size: self._holds(opened, requests[0], size),
        )

    def _holds(self, opened: OpenedEngine, request: CheckedRequest, size: int) -> bool:
        """Whether so many rows like the request's are computed as one."""
        dims: dict[str, Shape] = {}
        for tensor in opened.description.inputs:
            given = request.inputs.get(tensor.name)
            if given is None:
                return True  # the run says what is missing
            if not tensor.is_shape_tensor:
                dims[tensor.name] = (size, *given.shape[1:])
        if any(graph.bucket.takes(dims) for graph in self._graphs):
            return True
        for tensor in self._shape_inputs:
            values = request.inputs[tensor.name].numpy()[0]
            dims[tensor.name] = (size, *map(int, values.ravel()))
        return bool(holding(opened.description.profiles, opened.profiles, dims))

    def _run(self, opened: OpenedEngine, batch: Batch) -> None:
        engine = opened.description
        names = [tensor.name for tensor in engine.inputs if not tensor.is_shape_tensor]
        arrays = self._lane.bring_all(batch, names)
        for name in names:
            if name not in arrays:
                raise InvalidRequest(f"input '{name}' is missing; an engine needs all")
        shapes = {t.name: self._shape_values(batch, t.name) for t in self._shape_inputs}
        batch.mark_gathered()
        graph = fitting(self._graphs, arrays)
        if graph is not None:
            self._lane.hand_out(batch, graph.run(self._lane, batch, arrays))
            return
        dims: dict[str, Shape] = {name: array.shape for name, array in arrays.items()}
        dims |= {name: tuple(map(int, values.ravel())) for name, values in shapes.items()}
        number = choose_profile(engine.profiles, opened.profiles, dims) if engine.profiles else 0
        self._run_in(self._contexts[number], batch, arrays, shapes)

    def _run_in(
        self, context: EngineContext, batch: Batch, arrays: Mapping[str, DeviceArray],
        shapes: Mapping[str, np.ndarray],
    ) -> None:  # fmt: skip
        # Held until the run is in the stream: what is freed before is freed under it.
        aligned = {name: self._aligned(batch, array) for name, array in arrays.items()}
        context.set_inputs(aligned, shapes)
        outputs = context.allocate(context.output_shapes())
        context.run(self._lane.stream)
        if context.has_late_outputs:
            # Shapes that only the run shows: the host has to wait for them.
            self._lane.wait()
            batch.synchronised()
            outputs.update(context.grown())
        self._lane.hand_out(batch, outputs)
        for name, values in context.host_outputs().items():
            batch.outputs[0].append(Tensor.of(name, values))

    def _shape_values(self, batch: Batch, name: str) -> np.ndarray:
        """The values of a shape tensor; those of a model with batches begin with the batch size."""
        values = batch.requests[0].inputs[name].numpy()
        if not self._batching:
            return values
        if (values != values[0]).any():
            raise InvalidRequest(
                f"input '{name}' is a shape tensor: its rows must be equal within a request, since "
                "one shape holds for all of a batch"
            )
        first = np.array([batch.size], values.dtype)
        return np.concatenate([first, values[0].ravel()])

    def _agree(self, batch: Batch) -> bool:
        """Whether all rows of all requests want the same shapes."""
        for tensor in self._shape_inputs:
            rows = np.concatenate([r.inputs[tensor.name].numpy() for r in batch.requests])
            if (rows != rows[0]).any():
                return False
        return True

    def _run_apart(self, opened: OpenedEngine, batch: Batch, runs: Sequence[range]) -> None:
        """Each run as a batch of its own. What the engine does not take fails alone."""
        for run in runs:
            part = Batch([batch.requests[index] for index in run], batching=batch.batching)
            try:
                self._run(opened, part)
            except InvalidRequest as error:
                for index in run:
                    batch.fail(index, error)
            else:
                for index, outputs in zip(run, part.outputs, strict=True):
                    batch.respond(index, outputs)
            batch.synchronisations += part.synchronisations
            batch.gathered_bytes += part.gathered_bytes
            for kind, size_bytes in part.copies.items():
                batch.copied(kind, size_bytes)

    def _aligned(self, batch: Batch, array: DeviceArray) -> DeviceArray:
        """The array where TensorRT can read it: rows of a larger one may begin anywhere."""
        if array.address % ALIGNMENT == 0:
            return array
        copy = self._lane.empty(array.dtype, array.shape)
        self._lane.stream.copy(copy.address, array.address, array.nbytes)
        batch.copied(CopyKind.DEVICE, array.nbytes)
        return copy

    def _capture(self, bucket: Bucket) -> StaticRun:
        opened = self._opened
        assert opened is not None, "while it is being opened"
        profiles = opened.description.profiles
        number = choose_profile(profiles, opened.profiles, bucket.shapes) if profiles else 0
        context = opened.context(number, self._lane)
        return capture(self._lane, bucket, opened.description, context)

    def is_ready(self) -> bool:
        return self._opened is not None and not self._lane.is_lost

    def close(self) -> None:
        self._lane.close()
        for graph in self._graphs:
            graph.close()
        self._graphs, self._contexts, self._opened = [], {}, None
