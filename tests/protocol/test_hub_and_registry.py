"""Models of a hub and of a registry, served by their addresses: followed while they change, and
served while nobody answers."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fake_hub
import fake_registry
import pytest
from fake_hub import FakeHub, Refusal
from fake_registry import FakeRegistry, logged_onnx
from serving import RunningServer, adder_bytes, start_server

HUB, REGISTRY = "hf://org/adder", "mlflow://models:/fraud@champion"
LATE = "hf://org/late"
"""Nobody may read it when the server starts."""
REFUSAL = "/api/models/org/late"


@dataclass
class Site:
    hub: FakeHub
    registry: FakeRegistry
    server: RunningServer
    cache: Path

    def sum_of(self, model: str, value: float) -> float:
        """What the model makes of one number."""
        tensor = {"name": "x", "datatype": "FP32", "shape": [1], "data": [value]}
        answer = self.server.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        (found,) = answer["outputs"][0]["data"]
        return float(found)

    def serves(self, model: str) -> list[str]:
        """Its versions that are ready."""
        index = self.server.index()
        ready = (model, "READY")
        return [v for (name, v), each in index.items() if (name, each.get("state")) == ready]

    def wait_for(self, model: str, version: str) -> None:
        self.server.wait_until(lambda: self.serves(model) == [version], f"only version {version}")


@pytest.fixture(scope="module")
def places() -> Iterator[tuple[FakeHub, FakeRegistry]]:
    with (
        fake_hub.open_hub() as hub,
        fake_registry.open_registry() as registry,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("HF_ENDPOINT", hub.endpoint)
        environment.setenv("MLFLOW_TRACKING_URI", registry.uri)
        yield hub, registry


@pytest.fixture(scope="module")
def site(
    places: tuple[FakeHub, FakeRegistry], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    hub, registry = places
    hub.repo("org/adder").push({"model.onnx": adder_bytes(1), "pytorch_model.bin": b"a pickle"})
    hub.repo("org/late").push({"model.onnx": adder_bytes(7)})
    hub.refusals[REFUSAL] = Refusal(403)
    registry.register("fraud", logged_onnx(adder_bytes(10)))
    registry.register("fraud", logged_onnx(adder_bytes(20)))
    registry.aliases["fraud", "champion"] = 2
    cache, config = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("own") / "config"
    config.write_text('parameters { key: "intra_op_thread_count" value { string_value: "1" } }')
    server = start_server(
        HUB,
        f"--model-repository={REGISTRY}",
        f"--model-repository={LATE}",
        f"--remote-config=adder={config}",
        f"--remote-cache={cache}",
        "--repository-poll-secs=0.2",
    )
    yield Site(hub, registry, server, cache)
    assert server.stop() == 0
    server.end()


def test_both_are_served_under_their_own_names_and_numbers(site: Site) -> None:
    assert (site.serves("adder"), site.serves("fraud")) == (["1"], ["2"])
    assert site.sum_of("adder", 1) == 2
    assert site.sum_of("fraud", 1) == 21
    assert any(
        "pytorch_model.bin: pickles are never fetched" in line for line in site.server.output
    )


@pytest.mark.rows("R40a")
def test_what_refuses_at_the_start_is_shown_and_served_once_it_does_not(site: Site) -> None:
    told = "does not let the token read 'org/late' (403): give HF_TOKEN one with read access to it"
    assert any(f"{told}; the other repositories are served" in line for line in site.server.output)
    entry = site.server.index()["late", ""]
    assert entry["state"] == "UNAVAILABLE"
    assert entry["reason"].startswith("nothing could be fetched")
    assert site.server.is_ready()
    del site.hub.refusals[REFUSAL]
    site.wait_for("late", "1")
    assert site.sum_of("late", 1) == 8
    assert ("late", "") not in site.server.index()


def test_what_moves_is_another_version_and_its_predecessor_goes(site: Site) -> None:
    site.hub.repo("org/adder").push({"model.onnx": adder_bytes(5)})
    site.registry.aliases["fraud", "champion"] = 1
    site.wait_for("adder", "2")
    site.wait_for("fraud", "1")
    assert site.sum_of("adder", 1) == 6
    assert site.sum_of("fraud", 1) == 11


def test_what_cannot_be_loaded_leaves_what_serves(site: Site) -> None:
    site.hub.repo("org/adder").push({"model.onnx": b"half a file"})

    def is_told() -> bool:
        return any(
            version == "3" and name == "adder" and each["state"] == "UNAVAILABLE"
            for (name, version), each in site.server.index().items()
        )

    site.server.wait_until(is_told, "told that version 3 does not load")
    assert site.serves("adder") == ["2"]
    assert site.sum_of("adder", 1) == 6
    # An instance that starts again finds its files.
    assert {path.parent.name for path in site.cache.glob("trees/*/*/adder/*/model.onnx")} == {
        "2",
        "3",
    }


def test_a_config_of_the_operators_own_is_the_model_s(site: Site) -> None:
    _, text = site.server.get("/v2/models/adder/config")
    parameters = json.loads(text)["parameters"]
    assert parameters["intra_op_thread_count"] == {"string_value": "1"}


@pytest.mark.rows("R36")
def test_what_serves_goes_on_while_nobody_answers(site: Site) -> None:
    places: tuple[FakeHub | FakeRegistry, ...] = site.hub, site.registry
    for place in places:
        place.is_gone = True
    try:
        site.server.wait_until(
            lambda: min(place.num_unanswered for place in places) > 1, "asked both in vain"
        )
        assert site.sum_of("adder", 1) == 6
        assert site.sum_of("fraud", 1) == 11
        assert site.server.is_ready()
    finally:
        for place in places:
            place.is_gone = False


@pytest.mark.slow
def test_a_restart_while_nobody_answers_serves_what_was_there(
    places: tuple[FakeHub, FakeRegistry], serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    hub, registry = places
    hub.repo("org/other").push({"model.onnx": adder_bytes(3)})
    arguments = ("hf://org/other", f"--remote-cache={tmp_path}", "--model-control-mode=none")
    assert serve(*arguments).stop() == 0
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        again = Site(hub, registry, serve(*arguments), tmp_path)
    assert any("HF_HUB_OFFLINE is set" in line for line in again.server.output)
    assert again.sum_of("other", 1) == 4
