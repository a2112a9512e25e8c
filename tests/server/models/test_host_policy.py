"""Host policies: cores by name, and threads and processes that stay on them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trivet.backends.api import Batch, InvalidConfig, Placement
from trivet.server.models.host_policy import HostPolicies, PinnedInstance, on_cores

CORES = sorted(os.sched_getaffinity(0))
LAST = CORES[-1]


def placement(kind: str = "KIND_CPU", device: int = 0, policy: str = "") -> Placement:
    return Placement("m_0", kind, device, 1, host_policy=policy)


def test_names_are_those_of_groups_or_of_their_devices() -> None:
    policies = HostPolicies(
        {"cpu": frozenset({0}), "gpu_1": frozenset({1}), "big": frozenset({2, 3})}
    )
    assert policies.cores_of(placement()) == frozenset({0})
    assert policies.cores_of(placement("KIND_GPU", 1)) == frozenset({1})
    assert policies.cores_of(placement("KIND_GPU", 0)) is None
    assert policies.cores_of(placement(policy="big")) == frozenset({2, 3})
    assert policies.cores_of(placement(policy="unknown")) is None


def test_cores_are_numbers_and_ranges() -> None:
    policies = HostPolicies.parse([f"cpu,cpu-cores={CORES[0]}-{CORES[0]},{LAST}"])
    assert policies.cores_of(placement()) == frozenset({CORES[0], LAST})


@pytest.mark.skipif(not Path("/sys/devices/system/node/node0").exists(), reason="no NUMA here")
def test_a_node_has_cores_and_cores_go_before_it() -> None:
    policies = HostPolicies.parse([f"cpu,cpu-cores={LAST}", "cpu,numa-node=0", "other,numa-node=0"])
    assert policies.cores_of(placement()) == frozenset({LAST})
    assert policies.cores_of(placement(policy="other"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cpu", "give NAME,cpu-cores=FIRST-LAST or NAME,numa-node=NUMBER"),
        (",cpu-cores=0", "give NAME,"),
        ("cpu,cores=0", "give NAME,"),
        ("cpu,cpu-cores=a", "'a' is no core and no range"),
        ("cpu,cpu-cores=0-", "'0-' is no core and no range"),
        ("cpu,cpu-cores=100000", r"this process may use cores \[.*\], not \[100000\]"),
        ("cpu,numa-node=4711", "this machine has no NUMA node '4711'"),
        ("cpu,numa-node=../..", "has no NUMA node"),
    ],
)
def test_a_wrong_text_is_named(text: str, why: str) -> None:
    with pytest.raises(InvalidConfig, match=why):
        HostPolicies.parse([text])


def test_what_is_started_on_cores_stays_there_and_the_thread_goes_back() -> None:
    seen: dict[str, object] = {}
    may_look = threading.Event()

    def look() -> None:
        may_look.wait()
        seen["thread"] = os.sched_getaffinity(0)

    program = "import os; print(sorted(os.sched_getaffinity(0)))"
    before = os.sched_getaffinity(0)
    with on_cores(frozenset({LAST})):
        thread = threading.Thread(target=look)
        thread.start()
        printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert os.sched_getaffinity(0) == before
    may_look.set()
    thread.join()
    assert seen["thread"] == {LAST}
    assert printed.stdout.strip() == str([LAST])


class Looking:
    def __init__(self) -> None:
        self.cores: set[int] = set()

    def execute(self, batch: Batch) -> None:
        self.cores = os.sched_getaffinity(0)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing."""


def test_a_pinned_instance_s_own_thread_stays_on_its_cores() -> None:
    inner = Looking()
    instance = PinnedInstance(inner, frozenset({LAST}))
    thread = threading.Thread(target=instance.execute, args=[None])
    thread.start()
    thread.join()
    assert inner.cores == {LAST}
    assert os.sched_getaffinity(0) == set(CORES)
