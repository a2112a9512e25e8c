"""A whole server with engines on the twin of a GPU: from the HTTP request to the metrics page."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from device_twin import TwinDevice
from fake_nvml import FakeNvml
from fake_tensorrt import FakeTensorRt, plan

from trivet.backends.device.nvml import Gpus
from trivet.backends.tensorrt import backend as tensorrt
from trivet.backends.tensorrt.backend import TensorRtBackend
from trivet.server.app import Server
from trivet.server.settings import Settings

STEPS = ("first", "middle", "last")
CHAIN = "\n".join(
    f'step {{ model_name: "{name}" model_version: -1 '
    f'input_map {{ key: "x" value: "{given}" }} output_map {{ key: "y" value: "{made}" }} }}'
    for name, given, made in zip(STEPS, ("X", "A", "B"), ("A", "B", "Y"), strict=True)
)


class Site:
    def __init__(self, server: Server, session: aiohttp.ClientSession, nvml: FakeNvml) -> None:
        self.server = server
        self.session = session
        self.nvml = nvml

    def url(self, service: str, path: str) -> str:
        address = self.server.frontends.addresses[service]
        return f"http://{address.removeprefix('http://').partition('/')[0]}{path}"

    async def infer(self, model: str, name: str, rows: list[list[float]]) -> Any:
        tensor = {"name": name, "datatype": "FP32", "shape": [len(rows), 4], "data": rows}
        url = self.url("HTTP", f"/v2/models/{model}/infer")
        async with self.session.post(url, json={"inputs": [tensor]}) as answer:
            return await answer.json()

    async def samples(self) -> dict[str, float]:
        """The metrics page, by name and labels."""
        async with self.session.get(self.url("metrics", "/metrics")) as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    device, nvml = TwinDevice(), FakeNvml()
    fake = FakeTensorRt(device)
    monkeypatch.setattr(
        tensorrt, "BACKEND", TensorRtBackend(lambda: fake.library, lambda _: device)
    )
    found = Gpus.find(nvml, {"CUDA_VISIBLE_DEVICES": "0"})
    monkeypatch.setattr("trivet.server.app.Gpus.find", lambda: found)
    for name in STEPS:
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.plan").write_bytes(plan())
    (tmp_path / "chain" / "1").mkdir(parents=True)
    (tmp_path / "chain" / "config.pbtxt").write_text(
        f'platform: "ensemble" ensemble_scheduling {{ {CHAIN} }}'
    )
    settings = Settings.of(
        {
            "model_repository": [tmp_path],
            "model_control_mode": "none",
            "http_port": 0,
            "allow_grpc": False,
            "metrics_port": 0,
            "no_progress": True,
        }
    )
    server = Server(settings)
    await server.start()
    async with aiohttp.ClientSession() as session:
        yield Site(server, session, nvml)
    await server.stop()


async def test_a_chain_of_engines_hands_tensors_on_by_pointer_under_load(site: Site) -> None:
    answers = await asyncio.gather(
        *(site.infer("chain", "X", [[float(n)] * 4] * (1 + n % 3)) for n in range(24))
    )
    for n, answer in enumerate(answers):
        assert answer["outputs"][0]["data"] == [8.0 * n] * 4 * (1 + n % 3), answer
    samples = await site.samples()
    copied = 'trivet_tensor_copied_bytes_total{{kind="{1}",model="{0}",version="1"}}'
    for kind in ("host", "gather", "scatter", "host_to_device", "device_to_host"):
        assert samples[copied.format("middle", kind)] == 0, kind
    assert samples[copied.format("first", "device_to_host")] == 0
    assert samples[copied.format("last", "host_to_device")] == 0
    waits = 'trivet_host_synchronisations_total{{model="{}",version="1"}}'
    assert [samples[waits.format(name)] for name in STEPS[:2]] == [0, 0]
    runs = samples['nv_inference_exec_count{model="last",version="1"}']
    assert samples[waits.format("last")] == runs


async def test_an_engine_answers_alone_and_says_where_it_is(site: Site) -> None:
    answer = await site.infer("first", "x", [[1, 2, 3, 4]])
    assert answer["outputs"][0]["data"] == [2, 4, 6, 8]
    async with site.session.get(site.url("HTTP", "/v2/models/first/config")) as response:
        config = await response.json()
    assert config["platform"] == "tensorrt_plan"
    (group,) = config["instance_group"]
    assert (group["kind"], group["gpus"], group["count"]) == ("KIND_GPU", [0], 1)


async def test_a_batch_beyond_the_engine_is_the_client_s_error(site: Site) -> None:
    answer = await site.infer("first", "x", [[1, 2, 3, 4]] * 9)
    assert "9" in answer["error"]
    assert "8" in answer["error"]


async def test_statistics_tell_what_a_model_took(site: Site) -> None:
    async with site.session.get(site.url("HTTP", "/v2/models/first/stats")) as response:
        (stats,) = (await response.json())["model_stats"]
    assert stats["memory_usage"] == [{"type": "GPU", "id": 0, "byte_size": 0}]
