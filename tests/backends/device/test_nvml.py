"""Which GPUs are seen, and what they say."""

import sys

import pynvml
import pytest
from fake_nvml import GIB, Card, FakeNvml

from trivet.backends.device.nvml import Gpus, has_driver


def test_the_fake_has_functions_of_the_real_library_only() -> None:
    functions = [name for name in dir(FakeNvml) if name.startswith("nvml")]
    assert [name for name in functions if not callable(getattr(pynvml, name, None))] == []
    assert issubclass(pynvml.NVMLError, Exception)


def test_all_gpus_are_seen_in_order() -> None:
    gpus = Gpus.find(FakeNvml(), {})
    assert [(info.number, info.uuid) for info in gpus.all] == [(0, "GPU-aaaa"), (1, "GPU-bbbb")]
    assert gpus.all[0].name == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ("1", ["GPU-bbbb"]),
        ("1,0", ["GPU-bbbb", "GPU-aaaa"]),
        ("0,7,1", ["GPU-aaaa"]),
        ("GPU-bb", ["GPU-bbbb"]),
        ("MIG-1234", ["MIG-1234"]),
        ("MIG-9999", []),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_does(chosen: str, seen: list[str]) -> None:
    nvml = FakeNvml(mig=[Card("MIG-1234", is_mig=True)])
    gpus = Gpus.find(nvml, {"CUDA_VISIBLE_DEVICES": chosen})
    assert [info.uuid for info in gpus.all] == seen
    assert bool(gpus.why_none) == (not seen)


def test_a_reading_has_watts_joules_and_shares() -> None:
    gpus = Gpus.find(FakeNvml(), {})
    reading = gpus.read(gpus.all[0])
    assert (reading.total_bytes, reading.free_bytes) == (80 * GIB, 78 * GIB)
    assert (reading.utilization, reading.power_w, reading.power_limit_w) == (0.42, 123, 700)
    assert reading.energy_j == 5000


def test_a_mig_device_tells_its_memory_alone() -> None:
    gpus = Gpus.find(FakeNvml([Card("MIG-1", total=10 * GIB, is_mig=True)]), {})
    reading = gpus.read(gpus.all[0])
    assert reading.total_bytes == 10 * GIB
    assert (reading.utilization, reading.power_w, reading.energy_j) == (None, None, None)


def test_without_a_driver_the_reason_is_kept() -> None:
    gpus = Gpus.find(FakeNvml(has_driver=False), {})
    assert gpus.all == ()
    assert "no NVIDIA driver answers (Driver Not Loaded); nvidia-smi shows" in gpus.why_none


@pytest.mark.skipif(has_driver(), reason="a driver is there")
def test_without_a_driver_its_package_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import would raise
    monkeypatch.setattr("trivet.backends.device.nvml.find_spec", lambda _: object())
    assert "libnvidia-ml.so.1 is not there" in Gpus.find().why_none
