"""Some requests that an instance computes together."""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from trivet.backends.api.checked import CheckedRequest
from trivet.backends.api.copies import CopyKind
from trivet.backends.api.device import DeviceArray, Residence
from trivet.backends.api.device_tensor import DeviceTensor
from trivet.backends.api.errors import BackendFailed, ServingError
from trivet.backends.api.request import Parameters
from trivet.backends.api.tensor import Shape, Tensor, join_rows


class ResponseSender(Protocol):
    """Sends the responses of one request of a decoupled model, from any thread."""

    def send(
        self, outputs: list[Tensor], *, final: bool = False, parameters: Parameters | None = None
    ) -> None:
        """One response; `final` ends the request with it."""

    def finish(self) -> None:
        """Ends the request without a further response."""

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error. `send` with `final=False` may have come before."""


class Batch:
    """Requests with equal input sets and shapes (but for the batch dimension), run as one.

    Made by an executor, filled by `Instance.execute`, read by the executor. `size` is the sum of
    the requests' batch sizes. For a model with max_batch_size 0 a batch holds one request and
    nothing is joined or split.
    """

    __slots__ = (
        "batching",
        "computed_ns",
        "copies",
        "errors",
        "gathered_bytes",
        "gathered_ns",
        "num_tokens",
        "outputs",
        "parameters",
        "requests",
        "rescheduled",
        "senders",
        "size",
        "synchronisations",
    )

    is_plain = True
    """Whether inputs are the requests' own, row by row; not for batches that override `gather`."""

    def __init__(
        self,
        requests: Sequence[CheckedRequest],
        *,
        batching: bool,
        senders: Sequence[ResponseSender] = (),
    ) -> None:
        self.requests = requests
        self.batching = batching
        self.size = (
            sum(r.batch_size for r in requests) if len(requests) > 1 else requests[0].batch_size
        )
        self.senders = senders
        """One per request for a decoupled model, else empty."""
        self.outputs: list[list[Tensor]] = [[] for _ in requests]
        self.errors: dict[int, ServingError] = {}
        self.parameters: dict[int, Parameters] = {}
        self.num_tokens: dict[int, int] | None = None
        self.rescheduled: set[int] = set()
        self.gathered_bytes = 0
        self.copies: dict[CopyKind, int] = {}
        self.synchronisations = 0
        self.gathered_ns = 0
        self.computed_ns = 0

    def gather(self, name: str) -> np.ndarray | None:
        """The batch's values of one input, [size, ...].

        A view for a single request, and for requests whose tensors an earlier step of an ensemble
        made as one; else one copy. None when the requests do not carry this (optional) input.
        """
        requests = self.requests
        first = requests[0].inputs.get(name)
        if first is None:
            return None
        if len(requests) == 1:
            return self._on_host(first)
        if first.rows is not None:
            whole = join_rows([request.inputs[name] for request in requests])
            if whole is not None:
                return whole
        joined = np.concatenate([self._on_host(request.inputs[name]) for request in requests])
        self.gathered_bytes += joined.nbytes
        return joined

    def _on_host(self, tensor: Tensor) -> np.ndarray:
        if not tensor.is_on_host:
            self.copied(CopyKind.DEVICE_TO_HOST, tensor.nbytes)
            self.synchronised()
        return tensor.numpy()

    def scatter(self, name: str, values: np.ndarray) -> None:
        """Gives each request its rows of an output [size, ...], as views on `values`."""
        requests = self.requests
        if values.dtype.kind in "SU":
            values = values.astype(object)
        if not values.flags.c_contiguous:
            self.copied(CopyKind.SCATTER, values.nbytes)
            values = values.copy(order="C")
        if self.batching:
            self._check_rows(name, values.shape)
        if len(requests) == 1:
            self.outputs[0].append(Tensor.of(name, values))
            return
        start = 0
        for index, request in enumerate(requests):
            stop = start + request.batch_size
            tensor = Tensor.of(name, values[start:stop])
            tensor.rows = (values, start)
            self.outputs[index].append(tensor)
            start = stop

    def _check_rows(self, name: str, shape: Shape) -> None:
        """Also of a lone request: with another number of rows nobody knows which is whose."""
        if not shape or shape[0] != self.size:
            raise BackendFailed(
                f"model '{self.requests[0].model_name}' gave output '{name}' of shape "
                f"{list(shape)} for a batch of {self.size}: with max_batch_size, the first "
                "dimension of each output is the batch's"
            )

    def scatter_device(self, name: str, values: DeviceArray, host: np.ndarray | None) -> None:
        """The same for an output on a device: views on it for the requests that take it there, on
        its `host` copy for the others."""
        if self.batching:
            self._check_rows(name, values.shape)
        start = 0
        for index, request in enumerate(self.requests):
            is_whole = len(self.requests) == 1
            stop = values.shape[0] if is_whole and values.shape else start + request.batch_size
            part = values if is_whole else values.rows(start, stop)
            rows = host if is_whole or host is None else host[start:stop]
            wish = request.residence.get(name, Residence.HOST)
            if wish is Residence.HOST:
                if rows is None:  # nobody who wants it there has asked for it
                    start = stop
                    continue
                tensor = Tensor.of(name, rows)
                tensor.rows = None if is_whole or host is None else (host, start)
            else:
                seen = rows if wish is Residence.BOTH else None
                tensor = DeviceTensor.on(name, part, seen)
            self.outputs[index].append(tensor)
            start = stop

    def residences(self, name: str) -> set[Residence]:
        """Where the requests that want an output want it."""
        return {
            request.residence.get(name, Residence.HOST)
            for request in self.requests
            if not request.output_names or name in request.output_names
        }

    def respond(
        self, index: int, outputs: list[Tensor], parameters: Parameters | None = None
    ) -> None:
        """Sets all outputs of one request, for backends that answer request by request."""
        self.outputs[index] = outputs
        if parameters:
            self.parameters[index] = parameters

    def fail(self, index: int, error: ServingError) -> None:
        """Lets one request fail; its batch mates are unharmed."""
        self.errors[index] = error

    def read_tokens(self, index: int, count: int) -> None:
        """How many tokens a model has read for a request: they are counted against its key."""
        if self.num_tokens is None:
            self.num_tokens = {}
        self.num_tokens[index] = self.num_tokens.get(index, 0) + count

    def reschedule(self, index: int) -> None:
        """The model wants another pass over this request (`iterative_sequence`): it has no outputs
        now, and its sender, if it has one, stays open."""
        self.rescheduled.add(index)

    def copied(self, kind: CopyKind, size_bytes: int) -> None:
        """Counts tensor bytes that were copied other than by `gather`, which counts its own."""
        self.copies[kind] = self.copies.get(kind, 0) + size_bytes

    def synchronised(self) -> None:
        """Counts one wait of this thread for a device."""
        self.synchronisations += 1

    def mark_gathered(self) -> None:
        """Inputs are in place, computing begins: the border of compute_input and compute_infer."""
        self.gathered_ns = time.monotonic_ns()

    def mark_computed(self) -> None:
        """Outputs are computed: the border of compute_infer and compute_output."""
        self.computed_ns = time.monotonic_ns()

    def wants(self, name: str) -> bool:
        """Whether any request asked for this output."""
        return any(not r.output_names or name in r.output_names for r in self.requests)
