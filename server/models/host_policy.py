"""Which cores the threads of an instance may use, as `--host-policy` says it."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trivet.backends.api import (
    Batch,
    Cause,
    Instance,
    InvalidConfig,
    Placement,
    deaths_of,
    trouble_of,
)

log = logging.getLogger(__name__)
Cores = frozenset[int]
FLAG = "--host-policy"
_NODES = Path("/sys/devices/system/node")


class HostPolicies:
    """By name: a group's `host_policy`; without one, `cpu`, or `gpu_0` for instances on GPU 0."""

    def __init__(self, cores: Mapping[str, Cores] | None = None) -> None:
        self._cores = dict(cores or {})

    @classmethod
    def parse(cls, given: Sequence[str]) -> "HostPolicies":
        """From NAME,cpu-cores=RANGE and NAME,numa-node=NUMBER; cores go before nodes. Raises
        InvalidConfig."""
        cores: dict[str, Cores] = {}
        nodes: dict[str, Cores] = {}
        for text in given:
            name, _, setting = text.partition(",")
            key, _, value = setting.partition("=")
            if not name or key not in ("cpu-cores", "numa-node"):
                raise InvalidConfig(
                    f"{FLAG} {text}: give NAME,cpu-cores=FIRST-LAST or NAME,numa-node=NUMBER"
                )
            found, where = (cores, value) if key == "cpu-cores" else (nodes, _of_node(value, text))
            found[name] = _usable(_ranges(where, text), text)
        return cls({**nodes, **cores})

    def cores_of(self, placement: Placement) -> Cores | None:
        """None: any."""
        if placement.host_policy:
            if placement.host_policy not in self._cores:
                log.warning(
                    "instance %s has host_policy '%s', which no %s defines: any core may run it",
                    placement.name, placement.host_policy, FLAG,
                )  # fmt: skip
            return self._cores.get(placement.host_policy)
        is_on_gpu = placement.kind == "KIND_GPU"
        return self._cores.get(f"gpu_{placement.device_id}" if is_on_gpu else "cpu")


@contextmanager
def on_cores(cores: Cores | None) -> Iterator[None]:
    """This thread meanwhile, and for good the threads and processes that it starts meanwhile."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class PinnedInstance:
    """An instance whose own thread stays on some cores. It never runs on the event loop, which
    would stay there, too."""

    def __init__(self, inner: Instance, cores: Cores) -> None:
        self._inner = inner
        self._cores = cores
        self._is_pinned = False

    def execute(self, batch: Batch) -> None:
        """See Instance."""
        if not self._is_pinned:
            os.sched_setaffinity(0, self._cores)
            self._is_pinned = True
        self._inner.execute(batch)

    def is_ready(self) -> bool:
        """See Instance."""
        return self._inner.is_ready()

    def close(self) -> None:
        """See Instance."""
        self._inner.close()

    def trouble(self) -> str:
        """See Supervised."""
        return trouble_of([self._inner])

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return deaths_of([self._inner])


def pinned(
    instances: Sequence[tuple[str, Instance]], cores: Mapping[str, Cores]
) -> list[tuple[str, Instance]]:
    """Those instances that have cores, by name, kept there."""
    return [
        (name, PinnedInstance(instance, cores[name]) if name in cores else instance)
        for name, instance in instances
    ]


def _ranges(value: str, text: str) -> Cores:
    found: set[int] = set()
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidConfig(
                f"{FLAG} {text}: '{part}' is no core and no range of cores like 0-3"
            )
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _usable(cores: Cores, text: str) -> Cores:
    available = os.sched_getaffinity(0)
    if not cores or not cores <= available:
        raise InvalidConfig(
            f"{FLAG} {text}: this process may use cores {sorted(available)}, not "
            f"{sorted(cores - available)}"
        )
    return cores


def _of_node(number: str, text: str) -> str:
    """The cores of a NUMA node, as the system writes them."""
    path = _NODES / f"node{number}" / "cpulist"
    if not number.isdecimal() or not path.is_file():
        raise InvalidConfig(f"{FLAG} {text}: this machine has no NUMA node '{number}'")
    return path.read_text().strip()
