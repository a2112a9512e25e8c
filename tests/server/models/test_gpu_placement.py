"""Where instances go on GPUs, what they take there, and what is said when they do not fit."""

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_nvml import GIB, Card, FakeNvml
from patience import patience

from trivet.backends import registry
from trivet.backends.api import (
    About,
    Batch,
    InvalidConfig,
    LoadFailed,
    Measure,
    Memory,
    ModelFiles,
    Placement,
)
from trivet.backends.device.nvml import Gpus
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.metrics.config import MetricsConfig
from trivet.server.metrics.machine import Machine
from trivet.server.metrics.page import write_models
from trivet.server.metrics.text import Page
from trivet.server.models.gpu_memory import GpuLedger, parse_limits
from trivet.server.models.loader import Loader, Opened
from trivet.server.repository.layout import ModelFolder
from trivet.server.scheduling.statistics import ModelStatistics

TENSORS = """
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [2] }
output { name: "y" data_type: TYPE_FP32 dims: [2] }
"""


class GpuBackend:
    """Opens instances that take memory of the fake cards."""

    def __init__(self, nvml: FakeNvml) -> None:
        self.nvml = nvml
        self.takes = GIB
        self.placements: list[Placement] = []
        self.can_use = True
        self.fails_with = ""
        self.told: dict[int | None, int] = {}
        self.about = About(word="gpu_fake", backend="", memory=Memory(files_are_least=True))

    def can_use_gpus(self) -> bool:
        return self.can_use

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        return config

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Any:
        if self.fails_with:
            raise RuntimeError(self.fails_with)
        self.placements.append(placement)
        if placement.kind == "KIND_GPU":
            self.nvml.cards[placement.device_id].used += self.takes
        return GpuInstance(self.told)


class GpuInstance:
    def __init__(self, told: dict[int | None, int]) -> None:
        self.told = told

    def memory_bytes(self) -> dict[int | None, int]:
        return self.told

    def execute(self, batch: Batch) -> None:
        batch.scatter("y", np.zeros((batch.size, 2), np.float32))

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


class Site:
    def __init__(self, root: Path, backend: GpuBackend, nvml: FakeNvml) -> None:
        self.root = root
        self.backend = backend
        self.nvml = nvml
        self.ledger = GpuLedger(Gpus.find(nvml, {}))

    def load(self, config: str = "", name: str = "m", weights: int = 0) -> Opened:
        folder = self.root / name
        (folder / "1").mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(f'backend: "gpu_fake" {TENSORS} {config}')
        if weights:
            with (folder / "1" / "model.safetensors").open("wb") as file:
                os.truncate(file.fileno(), weights)  # sparse: takes no space
        catalog: Any = None
        loader = Loader(catalog, gpus=self.ledger)
        plan = loader.plan(ModelFolder(name, folder, (), {1: ()}), None)
        return loader.open(plan, 1)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    nvml = FakeNvml()
    backend = GpuBackend(nvml)
    find = registry.find_backend

    def found(config: ModelConfig, files: ModelFiles) -> Any:
        if config.backend == "gpu_fake":
            return registry.FoundBackend(backend.about, backend)
        return find(config, files)

    monkeypatch.setattr("trivet.server.models.loader.find_backend", found)
    return Site(tmp_path, backend, nvml)


def test_without_a_group_there_is_an_instance_on_each_gpu(site: Site) -> None:
    site.load()
    assert [(p.kind, p.device_id) for p in site.backend.placements] == [
        ("KIND_GPU", 0), ("KIND_GPU", 1),
    ]  # fmt: skip


def test_a_backend_without_gpu_support_stays_on_the_cpu(site: Site) -> None:
    site.backend.can_use = False
    opened = site.load()
    assert [p.kind for p in site.backend.placements] == ["KIND_CPU"]
    assert not opened.gpu_memory.taken


def test_groups_give_gpus_and_counts(site: Site) -> None:
    site.load("instance_group { kind: KIND_GPU gpus: [1] count: 2 } "
              "instance_group { kind: KIND_CPU }")  # fmt: skip
    assert [(p.kind, p.device_id) for p in site.backend.placements] == [
        ("KIND_GPU", 1), ("KIND_GPU", 1), ("KIND_CPU", 0),
    ]  # fmt: skip


def test_auto_with_a_gpu_that_is_missing_means_the_cpu(site: Site) -> None:
    site.load("instance_group { gpus: [5] }")
    assert [p.kind for p in site.backend.placements] == ["KIND_CPU"]


def test_a_gpu_that_is_not_there_is_told_with_those_that_are(site: Site) -> None:
    with pytest.raises(
        LoadFailed, match=r"placed on GPU 5, but the GPUs here are 0 \(NVIDIA H100 .*\), 1 \("
    ):
        site.load("instance_group { kind: KIND_GPU gpus: [5] }")


def test_without_a_gpu_kind_gpu_says_why_there_is_none(site: Site) -> None:
    site.ledger = GpuLedger(Gpus.find(FakeNvml(has_driver=False), {}))
    with pytest.raises(
        LoadFailed, match=r"asks for KIND_GPU, but no GPU was found: no NVIDIA driver answers"
    ):
        site.load("instance_group { kind: KIND_GPU }")


def test_what_a_load_takes_is_counted_in_statistics_and_metrics(site: Site) -> None:
    site.backend.takes = 3 * GIB
    opened = site.load("instance_group { kind: KIND_GPU gpus: [1] count: 2 }")
    assert {info.number: size for info, size in opened.gpu_memory.taken.items()} == {1: 6 * GIB}
    statistics = ModelStatistics("m", 1)
    statistics.gpu_memory = opened.gpu_memory.taken
    (usage,) = statistics.to_message().memory_usage
    assert (usage.type, usage.id, usage.byte_size) == ("GPU", 1, 6 * GIB)
    page = Page()
    write_models(page, [statistics], MetricsConfig.parse(()))
    expected = 'trivet_model_gpu_memory_bytes{gpu_uuid="GPU-bbbb",model="m",version="1"} '
    assert f"{expected}{6 * GIB}" in page.text()


def test_what_cannot_fit_is_refused_with_the_arithmetic(site: Site) -> None:
    site.backend.takes = 70 * GIB
    first = site.load("instance_group { kind: KIND_GPU gpus: [0] }", name="large")
    with pytest.raises(LoadFailed) as caught:
        site.load("instance_group { kind: KIND_GPU gpus: [0] count: 2 }", weights=6 * GIB)
    text = caught.value.message
    assert "needs at least 12.00 GiB (2 instances x 6.00 GiB of model files)" in text
    assert "8.00 GiB of 80.00 GiB are free" in text
    assert "Loaded there: 'large' version 1 70.00 GiB" in text
    assert len(site.backend.placements) == 1, "nothing was opened"
    del first


def test_instances_that_share_their_weights_need_them_once(site: Site) -> None:
    site.backend.about = About(
        word="gpu_fake", backend="", memory=Memory(files_are_least=True, shared_on=("KIND_GPU",))
    )
    site.backend.takes = 70 * GIB
    first = site.load("instance_group { kind: KIND_GPU gpus: [0] }", name="large")
    with pytest.raises(LoadFailed, match=r"needs at least 12.00 GiB \(12.00 GiB of model files\)"):
        site.load("instance_group { kind: KIND_GPU gpus: [0] count: 2 }", weights=12 * GIB)
    del first


def test_files_that_tell_no_memory_refuse_nothing(site: Site) -> None:
    site.backend.about = About(word="gpu_fake", backend="")
    site.load("instance_group { kind: KIND_GPU gpus: [0] }", weights=100 * GIB)
    assert len(site.backend.placements) == 1


def test_only_files_of_weights_count(site: Site) -> None:
    memory = Memory(weight_suffixes=(".plan",), files_are_least=True)
    site.backend.about = About(word="gpu_fake", backend="", memory=memory)
    site.load("instance_group { kind: KIND_GPU gpus: [0] }", weights=100 * GIB)
    assert len(site.backend.placements) == 1


def test_instances_that_tell_their_memory_are_believed(site: Site) -> None:
    memory = Memory(measure=Measure.REPORT)
    site.backend.about = About(word="gpu_fake", backend="", memory=memory)
    site.backend.takes = 3 * GIB
    site.backend.told = {None: 2 * GIB, 1: GIB}
    opened = site.load("instance_group { kind: KIND_GPU gpus: [1] count: 2 }")
    assert {info.number: size for info, size in opened.gpu_memory.taken.items()} == {1: 2 * GIB}
    assert opened.cpu_memory_bytes == 4 * GIB


def test_a_full_gpu_while_loading_gets_the_arithmetic_too(site: Site) -> None:
    site.backend.fails_with = "CUDA out of memory. Tried to allocate 2.00 GiB"
    with pytest.raises(LoadFailed, match=r"out of memory.*does not fit on GPU 0.*1.00 GiB of mod"):
        site.load("instance_group { kind: KIND_GPU gpus: [0] }", weights=GIB)
    site.backend.fails_with = ""
    site.load("instance_group { kind: KIND_GPU gpus: [0] }", name="other")


def test_a_limit_on_a_gpu_s_used_share_holds(site: Site) -> None:
    site.ledger = GpuLedger(site.ledger.gpus, parse_limits(["0:0.5"]))
    site.nvml.cards[0].used = 60 * GIB
    with pytest.raises(LoadFailed, match=r"75% of GPU 0's memory are in use, more than the 50%"):
        site.load("instance_group { kind: KIND_GPU gpus: [0] }")
    with pytest.raises(InvalidConfig, match="write GPU:SHARE such as"):
        parse_limits(["0:90"])


def test_devices_by_uuid_run_in_processes_that_see_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Placement] = []

    def open_isolated(word: str, config: Any, files: Any, placement: Placement) -> Any:
        opened.append(placement)
        return GpuInstance({})

    monkeypatch.setattr("trivet.backends.process.open_isolated", open_isolated)
    uuids = 'parameters { key: "gpu_uuids" value { string_value: "MIG-1111, MIG-2222" } }'
    site.load(f"instance_group {{ kind: KIND_GPU count: 1 }} {uuids}")
    assert [placement.device_uuid for placement in opened] == ["MIG-1111", "MIG-2222"]
    assert not site.backend.placements
    with pytest.raises(InvalidConfig, match=r"gpu_uuids has '0', which is no UUID; nvidia-smi -L"):
        site.load(f"instance_group {{ kind: KIND_GPU }} {uuids.replace('MIG-1111', '0')}")


async def test_the_page_has_triton_s_metrics_of_gpus() -> None:
    nvml = FakeNvml([Card("GPU-aaaa"), Card("MIG-1", is_mig=True)])
    machine = Machine(0.0, Gpus.find(nvml, {}))
    machine.start()
    page = Page()
    async with asyncio.timeout(patience()):
        while "nv_gpu" not in page.text():
            await asyncio.sleep(0.05)
            page = Page()
            machine.write(page)
    await machine.close()
    lines = page.text().splitlines()
    assert 'nv_gpu_utilization{gpu_uuid="GPU-aaaa"} 0.42' in lines
    assert f'nv_gpu_memory_total_bytes{{gpu_uuid="MIG-1"}} {80 * GIB}' in lines
    assert 'nv_gpu_power_usage{gpu_uuid="GPU-aaaa"} 123' in lines
    assert 'nv_gpu_power_limit{gpu_uuid="GPU-aaaa"} 700' in lines
    assert "# TYPE nv_energy_consumption counter" in lines
    assert any(line.startswith("nv_pinned_memory_pool_total_bytes ") for line in lines)
    assert not any("MIG-1" in line and "power" in line for line in lines)


def test_a_backend_that_cannot_be_placed_by_uuid_says_so(site: Site) -> None:
    folder = site.root / "same"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        f'backend: "identity" {TENSORS} instance_group {{ kind: KIND_GPU }} '
        'parameters { key: "gpu_uuids" value { string_value: "MIG-1" } }'
    )
    catalog: Any = None
    loader = Loader(catalog, gpus=site.ledger)
    plan = loader.plan(ModelFolder("same", folder, (), {1: ()}), None)
    with pytest.raises(InvalidConfig, match="backend 'identity' takes no parameter gpu_uuids"):
        loader.open(plan, 1)
