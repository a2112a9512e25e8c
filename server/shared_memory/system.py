"""Shared memory that clients register: tensors travel by name instead of in the message."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import (
    AlreadyExists,
    DataType,
    InvalidRequest,
    NotFound,
    Shape,
    Tensor,
    Unsupported,
)
from trivet.server.protocol.wishes import RegionSlice
from trivet.server.shared_memory.bounds import check_room, check_slice, check_sum
from trivet.server.shared_memory.cuda import CudaRegion, CudaRegions
from trivet.server.shared_memory.native.shm_guard import GuardedMapping, load_guard

Buffer = bytes | bytearray | memoryview

_MAX_NAME_BYTES = 255
_FOLDER = Path("/dev/shm")  # noqa: S108 - where shm_open keeps its objects on Linux
_DISABLED = (
    "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
)


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a shared memory object, under the name that the client gave it."""

    name: str
    key: str
    """The object's name for `shm_open`: "/name"."""
    offset: int
    """Bytes from the object's start to the region's."""
    byte_size: int


class SharedMemory:
    """The registered regions. The event loop owns it.

    A view from `read` keeps its mapping alive, so a region may be unregistered while a request
    still uses it. The object's size is looked up at each use, because a client can shrink it. Where
    it does so while a request is being computed, the rest reads as zeros (`native/shm_guard.c`);
    without the compiled guard nothing is mapped, and each read is a copy.
    """

    def __init__(self, *, enabled: bool, cuda: CudaRegions | None = None) -> None:
        self._enabled = enabled
        self._cuda = CudaRegions() if cuda is None else cuda
        self._mappings: dict[str, _Mapping] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Maps an object. Raises InvalidRequest (key, sizes), AlreadyExists, Unsupported."""
        self._require_enabled()
        if name in self._mappings or name in self._cuda:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        _check_name(name)
        _check_key(name, key)
        _check_range(name, offset, byte_size)
        self._mappings[name] = _Mapping(Region(name, key, offset, byte_size))

    def unregister(self, name: str | None) -> None:
        """Forgets one region, or all for None. An unknown name is no error, as in Triton."""
        self._require_enabled()
        for each in [name] if name is not None else list(self._mappings):
            mapping = self._mappings.pop(each, None)
            if mapping is not None:
                mapping.close()

    def status(self, name: str | None) -> list[Region]:
        """One region, or all for None. Raises NotFound. Answers even where disabled."""
        if name is None:
            return [mapping.region for mapping in self._mappings.values()]
        if name not in self._mappings:
            raise NotFound(f"Unable to find system shared memory region: '{name}'")
        return [self._mappings[name].region]

    def register_cuda(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        """Opens memory on a GPU. Raises InvalidRequest, AlreadyExists, Unsupported."""
        self._require_enabled()
        if name in self._mappings:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        _check_name(name)
        self._cuda.register(name, raw_handle, device_id, byte_size)

    def unregister_cuda(self, name: str | None) -> None:
        """Forgets one region on a GPU, or all for None."""
        self._require_enabled()
        self._cuda.unregister(name)

    def cuda_status(self, name: str | None) -> list[CudaRegion]:
        """One region on a GPU, or all for None. Raises NotFound. Answers even where disabled."""
        return self._cuda.status(name)

    def is_cuda(self, name: str) -> bool:
        """Whether a region lies on a GPU."""
        return name in self._cuda

    def tensor(
        self, region: RegionSlice, name: str, datatype: DataType, shape: Shape
    ) -> Tensor | None:
        """A tensor on a region on a GPU; None for any other region, which `read` reads. Raises
        InvalidRequest."""
        if region.name not in self._cuda:
            return None
        place = (region.name, region.offset, region.byte_size)
        return self._cuda.tensor(*place, name, datatype, shape)

    def write_tensor(self, region: RegionSlice, tensor: Tensor) -> None:
        """Puts a tensor's values into a region of either kind. Raises InvalidRequest."""
        if region.name in self._cuda:
            self._cuda.write(region.name, region.offset, tensor, region.byte_size)
        else:
            self.write(region.name, region.offset, [tensor.raw()], region.byte_size)

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """The bytes at `offset` of the region, in place. Raises InvalidRequest."""
        mapping = self._find(name)
        return mapping.read(mapping.locate(offset, byte_size), byte_size)

    def write(self, name: str, offset: int, pieces: Sequence[Buffer], max_byte_size: int) -> None:
        """Puts `pieces` one after another at `offset` of the region.

        Raises InvalidRequest where they need more than `max_byte_size` or the region ends.
        """
        mapping = self._find(name)
        size_bytes = sum(len(piece) for piece in pieces)
        check_room(name, max_byte_size, size_bytes)
        mapping.write(mapping.locate(offset, max_byte_size), pieces)

    def close(self) -> None:
        """Forgets every region."""
        for mapping in self._mappings.values():
            mapping.close()
        self._mappings.clear()
        self._cuda.unregister(None)

    def _find(self, name: str) -> "_Mapping":
        self._require_enabled()
        mapping = self._mappings.get(name)
        if mapping is None:
            raise InvalidRequest(f"Unable to find shared memory region: '{name}'")
        return mapping

    def _require_enabled(self) -> None:
        if not self._enabled:
            raise Unsupported(_DISABLED)


class _Mapping:
    """An open object and its mapping. The mapping itself lives as long as the last view of it."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self._descriptor = _open(region)
        try:
            self._check_size()
            self._view = self._mapped(region.offset + region.byte_size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def locate(self, offset: int, byte_size: int) -> int:
        """Where in the object the bytes at `offset` of the region are."""
        region = self.region
        check_slice(region.name, region.byte_size, offset, byte_size)
        self._check_size()
        return region.offset + offset

    def _mapped(self, length: int) -> memoryview | None:
        guard = load_guard()
        if guard is None:
            return None
        mapping = GuardedMapping(self._descriptor, length)
        return memoryview(mapping).toreadonly() if mapping.guard(guard) else None

    def read(self, start: int, byte_size: int) -> memoryview:
        """The bytes there."""
        if self._view is not None:
            return self._view[start : start + byte_size]
        data = os.pread(self._descriptor, byte_size, start)
        if len(data) < byte_size:
            self._check_size()
        return memoryview(data)

    def write(self, start: int, pieces: Sequence[Buffer]) -> None:
        # Not through the mapping: pwrite cannot fault, whatever the client does to the object.
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(self._descriptor, rest, start)
                rest, start = rest[written:], start + written

    def close(self) -> None:
        """Lets go of the object; views that are still held stay valid."""
        os.close(self._descriptor)

    def _check_size(self) -> None:
        region = self.region
        size_bytes = os.fstat(self._descriptor).st_size
        if region.offset + region.byte_size > size_bytes:
            raise InvalidRequest(
                f"Invalid offset + byte size for shared memory region: '{region.name}': "
                f"{region.offset} + {region.byte_size} is past the {size_bytes} bytes of key "
                f"'{region.key}'"
            )


def _open(region: Region) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(_FOLDER / region.key.removeprefix("/"), flags)
    except OSError as error:
        raise InvalidRequest(
            f"Unable to open shared memory region '{region.name}': key '{region.key}': "
            f"{os.strerror(error.errno or 0)}"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _invalid_key(region.name, region.key)
    return descriptor


def _check_name(name: str) -> None:
    if not name or len(name.encode(errors="replace")) > _MAX_NAME_BYTES:
        raise InvalidRequest(
            f"the name of a shared memory region must have 1 to {_MAX_NAME_BYTES} bytes"
        )


def _check_key(name: str, key: str) -> None:
    plain = key.removeprefix("/")
    if (
        plain in ("", ".", "..")
        or "/" in plain
        or not plain.isprintable()
        or len(plain.encode(errors="replace")) > _MAX_NAME_BYTES
    ):
        raise _invalid_key(name, key)


def _invalid_key(name: str, key: str) -> InvalidRequest:
    return InvalidRequest(
        f"cannot register shared memory region '{name}' - invalid shm key '{key[:64]}'"
    )


def _check_range(name: str, offset: int, byte_size: int) -> None:
    if offset < 0 or byte_size <= 0:
        raise InvalidRequest(
            f"cannot register shared memory region '{name}': offset {offset} must not be negative "
            f"and byte_size {byte_size} must be positive"
        )
    check_sum(name, offset, byte_size)
