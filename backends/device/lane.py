"""The lane of one instance on a GPU: its stream, what comes onto it and what leaves it.

The host waits at one place only: in `hand_out`, once a batch, and only where somebody wants values
on the host. Everything else is order among streams.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from trivet.backends.api import (
    Batch,
    CopyKind,
    DeviceArray,
    DeviceFull,
    DeviceLost,
    Event,
    Residence,
    Stream,
    Tensor,
    join_device_rows,
)
from trivet.backends.device.driver import Gpu
from trivet.backends.device.errors import OutOfMemory
from trivet.backends.device.pinned import PinnedPool


class Lane:
    """Owned by the instance's thread."""

    def __init__(
        self,
        gpu: Gpu,
        pool: PinnedPool,
        output_pool: PinnedPool | None = None,
        *,
        busy_waits: bool = False,
    ) -> None:
        """`busy_waits`: its thread asks the GPU over and over instead of sleeping until it is done:
        tens of microseconds sooner, for a core."""
        self.gpu = gpu
        self._blocks = not busy_waits
        self.stream: Stream = gpu.new_stream()
        self._pool = pool
        self._output_pool = output_pool or pool
        self._taken: list[DeviceArray] = []
        """Inputs of others' memory, until the batch's work is given to the stream."""
        self._staged: list[tuple[Event, list[np.ndarray]]] = []
        """Host memory that copies still read."""
        self._sources: list[np.ndarray] = []
        self.is_lost = False
        """Whether the GPU has faulted: nothing can be computed on it by this process any more."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Around a batch: makes the GPU this thread's, and clears up after a batch that fails.

        Raises DeviceFull for one that found no memory.
        """
        try:
            self.gpu.activate()
            yield
        except OutOfMemory as error:
            self._drop()
            raise DeviceFull(f"this batch did not fit: {error.message}") from error
        except DeviceLost:
            self.is_lost = True
            raise
        except BaseException:
            self._drop()
            raise

    def empty(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> DeviceArray:
        """Fresh memory for this stream."""
        size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        # An address is needed even where there is nothing to put there.
        allocation = self.gpu.allocate(max(1, size_bytes), self.stream)
        return DeviceArray(allocation.memory, allocation.address, dtype, shape)

    def bring(self, batch: Batch, name: str) -> DeviceArray | None:
        """The batch's values of one input on this device, [size, ...]; None if it has none.

        What lies here already is used in place: the stream waits for its maker's event. What comes
        from the host goes through pinned memory, and the host does not wait for it.
        """
        if not batch.is_plain:
            made = batch.gather(name)
            return None if made is None else self.upload(batch, made)
        first = batch.requests[0].inputs.get(name)
        if first is None:
            return None
        tensors = [request.inputs[name] for request in batch.requests]
        here = [tensor.device for tensor in tensors]
        if all(array is not None and self._is_here(array) for array in here):
            arrays = [array for array in here if array is not None]
            joined = arrays[0] if len(arrays) == 1 else join_device_rows(arrays)
            return self._gather(batch, arrays) if joined is None else self._take(joined)
        if any(array is not None and self._is_here(array) for array in here):
            return self._gather(batch, [self._moved(batch, tensor) for tensor in tensors])
        values = batch.gather(name)
        assert values is not None, "the first request has it"
        return self.upload(batch, values)

    def bring_all(self, batch: Batch, names: Iterable[str]) -> dict[str, DeviceArray]:
        """Those of the inputs that the batch has, on this device."""
        brought = ((name, self.bring(batch, name)) for name in names)
        return {name: array for name, array in brought if array is not None}

    def upload(self, batch: Batch, values: np.ndarray) -> DeviceArray:
        """A host array on this device."""
        staged = self._pool.take(values.dtype, values.shape)
        np.copyto(staged, values)
        self._sources.append(staged)
        array = self.empty(values.dtype, values.shape)
        self.stream.copy(array.address, staged.ctypes.data, values.nbytes)
        batch.copied(CopyKind.HOST_TO_DEVICE, values.nbytes)
        return array

    def hand_out(self, batch: Batch, outputs: Mapping[str, DeviceArray]) -> None:
        """Ends a batch: gives each request its rows, on the device for those that take them there.

        Waits for the device if anybody wants values on the host, and marks the batch as computed.
        """
        wanted = {name: self._wanted(batch, name) for name in outputs}
        hosts = {
            name: self._download(batch, array)
            for name, array in outputs.items()
            if wanted[name] & {Residence.HOST, Residence.BOTH}
        }
        must_wait = any(wishes - {Residence.DEVICE} for wishes in wanted.values())
        done = self.stream.record(blocks=self._blocks)
        for array in self._taken:
            array.memory.used(done)
        self._taken.clear()
        if must_wait:
            done.wait()
            batch.synchronised()
        self._keep_until(done, is_done=must_wait)
        batch.mark_computed()
        for name, array in outputs.items():
            if not batch.is_plain and name in hosts:
                batch.scatter(name, hosts[name])
            elif wanted[name]:
                array.ready = array.ready or done
                batch.scatter_device(name, array, hosts.get(name))

    def _wanted(self, batch: Batch, name: str) -> set[Residence]:
        if batch.is_plain:
            return batch.residences(name)
        return {Residence.HOST} if batch.wants(name) else set()

    def wait(self) -> None:
        """Holds the calling thread until all that was given to the stream is done."""
        self.stream.record().wait()
        self._staged.clear()

    def close(self) -> None:
        """Lets what was begun end."""
        if not self.is_lost:
            self.gpu.activate()
            self.wait()

    def _drop(self) -> None:
        """After a batch that failed half-way: what it took is held until the stream is past it."""
        try:
            done = self.stream.record()
        except DeviceLost:
            self.is_lost = True
            return
        for array in self._taken:
            array.memory.used(done)
        self._taken.clear()
        self._keep_until(done, is_done=False)

    def _is_here(self, array: DeviceArray) -> bool:
        return array.memory.device.dlpack == self.gpu.dlpack

    def _take(self, array: DeviceArray) -> DeviceArray:
        if array.ready is not None:
            self.stream.wait_for(array.ready)
        self._taken.append(array)
        return array

    def _moved(self, batch: Batch, tensor: Tensor) -> DeviceArray:
        array = tensor.device
        if array is not None and self._is_here(array):
            return array
        if not tensor.is_on_host:
            batch.copied(CopyKind.DEVICE_TO_HOST, tensor.nbytes)
            batch.synchronised()
        return self.upload(batch, tensor.numpy())

    def _gather(self, batch: Batch, arrays: list[DeviceArray]) -> DeviceArray:
        """Rows of several arrays as one: copies on the device."""
        num_rows = sum(array.shape[0] for array in arrays)
        whole = self.empty(arrays[0].dtype, (num_rows, *arrays[0].shape[1:]))
        position = whole.address
        for array in arrays:
            self._take(array)
            self.stream.copy(position, array.address, array.nbytes)
            position += array.nbytes
        batch.copied(CopyKind.DEVICE, whole.nbytes)
        return whole

    def _download(self, batch: Batch, array: DeviceArray) -> np.ndarray:
        host = self._output_pool.take(array.dtype, array.shape)
        self.stream.copy(host.ctypes.data, array.address, array.nbytes)
        batch.copied(CopyKind.DEVICE_TO_HOST, array.nbytes)
        return host

    def _keep_until(self, done: Event, *, is_done: bool) -> None:
        self._staged = [each for each in self._staged if not is_done and not each[0].is_done()]
        if self._sources and not is_done:
            self._staged.append((done, self._sources))
        self._sources = []
