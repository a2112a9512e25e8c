"""What a forked process is told to be like: as if whoever orders it had started it."""

import json
import os
import resource
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

FORK = b"f"
"""What a fork server is asked, with the descriptors of an order, of the ends of both links of the
process, and of its output."""
READY = b"r"
"""What it says once it can be asked."""
PROCESS_ID = struct.Struct("<i")
"""Its answer."""
NO_PROCESS = 0
"""Where the system starts no more of them."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LIMITS = {name: getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
_MOST_BYTES = 16 << 20


def instance_variables(given: Mapping[str, str], num_threads: int) -> dict[str, str]:
    """For an instance process: the server's, with what numeric libraries read when they are
    imported."""
    threads = dict.fromkeys(_THREAD_VARIABLES, str(num_threads))
    return {**given, **threads, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


@dataclass(frozen=True, slots=True)
class Order:
    """What a parent hands on to what it executes, and what an interpreter reads at its start."""

    environment: Mapping[str, str]
    num_threads: int
    """Of libraries that compute."""
    is_confined: bool
    """Whether it is to leave the network."""
    cores: Sequence[int]
    limits: Mapping[str, Sequence[int]]
    """Soft and hard ones, by name."""

    @classmethod
    def of_caller(
        cls, environment: Mapping[str, str], num_threads: int, *, is_confined: bool
    ) -> "Order":
        """With the cores and limits of the thread that calls."""
        return cls(
            environment,
            num_threads,
            is_confined,
            sorted(os.sched_getaffinity(0)),
            {name: resource.getrlimit(number) for name, number in _LIMITS.items()},
        )

    @contextmanager
    def written(self) -> Iterator[int]:
        """A descriptor that it can be read from, wherever that stands, in whichever process."""
        fd = os.memfd_create("order")
        try:
            # Not orjson: bytes of an environment that are no UTF-8 must arrive, too.
            os.pwrite(fd, json.dumps(asdict(self)).encode(), 0)
            yield fd
        finally:
            os.close(fd)

    @classmethod
    def read(cls, fd: int) -> "Order":
        """Closes the descriptor."""
        try:
            return cls(**json.loads(os.pread(fd, _MOST_BYTES, 0)))
        finally:
            os.close(fd)

    def take_effect(self) -> None:
        """Makes this process like that, but for threads and network."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.sched_setaffinity(0, self.cores)
        for name, limits in self.limits.items():
            # What may not be raised again has been lowered for all processes of the server.
            with suppress(ValueError, OSError):
                resource.setrlimit(_LIMITS[name], (limits[0], limits[1]))
