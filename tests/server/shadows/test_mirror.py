"""What a shadow is asked, and what it may not do to others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_models import NoExecutor, made_model
from patience import patience

from trivet.backends.api import (
    BackendFailed,
    CheckedRequest,
    DataType,
    InferRequest,
    InferResponse,
    InvalidConfig,
    ServingError,
    Signature,
    Sink,
    Tensor,
    TensorSpec,
)
from trivet.server.models.model import Model
from trivet.server.models.registry import Registry
from trivet.server.models.shadowing import Shadow, parse_shadow
from trivet.server.models.traffic import parse_traffic
from trivet.server.rollouts.desk import ReleaseDesk
from trivet.server.rollouts.experiments import Experiments
from trivet.server.shadows import kept
from trivet.server.shadows.kept import KeptDifferences
from trivet.server.shadows.mirror import MOST_BYTES, Verdict
from trivet.server.shadows.shadows import Shadows

SPEC = TensorSpec("x", DataType.FP32, (-1,), (-1,))
SIGNATURE = Signature({"x": SPEC}, {"y": TensorSpec("y", DataType.FP32, (-1,), (-1,))}, 0, False)
BESIDE = "[split]\n1 = 100\n[shadow]\nversion = 2\n"


class Adds(NoExecutor):
    """Answers with what it is given and a number more, when it is told to."""

    def __init__(self, amount: float, *, is_held: bool = False) -> None:
        self.amount = amount
        self.is_held = is_held
        self.error: ServingError | None = None
        self.held: list[tuple[CheckedRequest, Sink]] = []

    def submit(self, request: object, sink: Sink) -> None:
        assert isinstance(request, CheckedRequest)
        self.held.append((request, sink))
        if not self.is_held:
            self.release()

    def release(self) -> None:
        for request, sink in self.held:
            if self.error is not None:
                sink.fail(self.error)
                continue
            y = Tensor.of("y", request.inputs["x"].numpy() + np.float32(self.amount))
            sink.send(InferResponse("m", request.model_version, request.id, [y]), final=True)
        self.held.clear()


class Site:
    """Version 1 answers, and version 2 is asked beside."""

    def __init__(self, folder: Path, toml: str = BESIDE, amount: float = 2.0) -> None:
        self.registry = Registry()
        self.shadows = Shadows(self.registry, folder)
        experiments = Experiments(self.shadows)
        self.registry.routers.watch_of = experiments.watch_of
        self.shadow = Adds(amount)
        self.primary = self._serves(1, Adds(1.0))
        self.beside = self._serves(2, self.shadow)
        self.registry.share_out("m", parse_traffic(toml))

    def _serves(self, version: int, executor: Adds) -> Model:
        model = made_model("m", SIGNATURE, executor, version=version)
        self.registry.publish(model)
        return model

    def ask(self, name: str = "", size: int = 3) -> list[float]:
        """What a client gets."""
        x = np.zeros(size, np.float32)
        request = InferRequest("m", None, name, {"x": Tensor.of("x", x)})
        admitted = self.registry.routers.resolve("m", None)
        assert admitted.watch is not None
        answer = Answer()
        checked = CheckedRequest("m", admitted.version, name, request.inputs)
        admitted.model.executor.submit(checked, admitted.watch.observed(request, answer))
        x[:] = 99.0  # the memory is another's by now
        return answer.values

    @property
    def counts(self) -> dict[Verdict, int]:
        return dict(self.shadows.counts_of("m").get(2, {}))

    async def until(self, **wanted: int) -> None:
        async with asyncio.timeout(patience()):
            while any(self.counts.get(Verdict(name), 0) < n for name, n in wanted.items()):
                await asyncio.sleep(0.001)

    def kept(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.shadows.kept("m")]


class Answer:
    """Keeps what a client gets."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def send(self, response: InferResponse, *, final: bool) -> None:
        assert final
        self.values = response.outputs[0].numpy().tolist()

    def finish(self) -> None:
        """No more."""

    def fail(self, error: ServingError) -> None:
        raise error


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    made.shadows.close()


async def test_a_shadow_answers_nobody_and_its_differences_are_kept(site: Site) -> None:
    assert site.ask("r1") == [1.0, 1.0, 1.0]
    await site.until(different=1)

    (told,) = site.kept()
    assert told["differences"] == ["y: 3 of 3 numbers differ, by up to 1"]
    assert (told["request"], told["version"], told["shadow"]) == ("r1", 1, 2)
    assert told["inputs"] == {"x": [0.0, 0.0, 0.0]}
    assert (told["outputs"], told["shadow_outputs"]) == ({"y": [1.0] * 3}, {"y": [2.0] * 3})


async def test_equal_answers_are_counted_only(tmp_path: Path) -> None:
    site = Site(tmp_path, amount=1.0)
    site.ask()
    await site.until(same=1)

    assert site.kept() == []
    site.shadows.close()


async def test_values_that_are_not_to_be_kept_are_not(tmp_path: Path) -> None:
    site = Site(tmp_path, BESIDE + 'redact = ["x"]')
    site.ask()
    await site.until(different=1)

    assert site.kept()[0]["inputs"] == {"x": "(redacted)"}
    site.shadows.close()


async def test_a_shadow_that_fails_fails_nobody(site: Site) -> None:
    site.shadow.error = BackendFailed("it is broken")
    assert site.ask() == [1.0, 1.0, 1.0]
    await site.until(failed=1)

    assert site.counts == {Verdict.FAILED: 1}


async def test_what_has_no_place_is_shed_and_delays_nobody(tmp_path: Path) -> None:
    site = Site(tmp_path, BESIDE + "queue = 2")
    site.shadow.is_held = True
    assert [site.ask() for _ in range(5)] == [[1.0, 1.0, 1.0]] * 5
    assert site.ask(size=MOST_BYTES // 4) != []

    assert site.counts == {Verdict.SHED: 4}
    site.shadows.close()


async def test_it_waits_until_who_answers_is_idle(site: Site) -> None:
    site.primary.statistics.pending += 1
    site.ask()
    await asyncio.sleep(0.05)
    assert site.counts == {}

    site.primary.statistics.pending -= 1
    await site.until(different=1)


async def test_only_so_many_are_computed_at_a_time(tmp_path: Path) -> None:
    site = Site(tmp_path, BESIDE + "concurrency = 2")
    site.shadow.is_held = True
    for _ in range(4):
        site.ask()
    async with asyncio.timeout(patience()):
        while len(site.shadow.held) < 2:
            await asyncio.sleep(0.001)
    assert len(site.shadow.held) == 2

    site.shadow.is_held = False
    site.shadow.release()
    await site.until(different=4)
    site.shadows.close()


async def test_an_answer_that_comes_after_the_end_harms_no_executor(site: Site) -> None:
    site.shadow.is_held = True
    site.ask()
    async with asyncio.timeout(patience()):
        while not site.shadow.held:
            await asyncio.sleep(0.001)
    site.shadows.close()
    site.shadow.release()

    assert not any(site.counts.values())


async def test_a_part_of_the_requests_has_a_shadow(tmp_path: Path) -> None:
    site = Site(tmp_path, BESIDE + "percent = 25")
    for _ in range(8):
        site.ask()
    await site.until(different=2)

    assert sum(site.counts.values()) == 2
    site.shadows.close()


async def test_its_counts_are_told(site: Site) -> None:
    site.ask()
    await site.until(different=1)
    desk = ReleaseDesk.alone(site.registry)

    assert desk.traffic("m")["shadows"] == {}
    assert list(site.shadows.counts()) == [("m", 2, {Verdict.DIFFERENT: 1})]


def test_only_the_last_ones_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 3)
    made = KeptDifferences(tmp_path)
    for number in range(10):
        made.keep("m/x", {"n": number})

    assert [json.loads(line)["n"] for line in made.read("m/x")] == [7, 8, 9]
    assert len(made.path_of("m/x").read_bytes().splitlines()) < 6
    assert KeptDifferences(tmp_path).read("y") == []


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"versoin": 2}, r"\[shadow\] has no key 'versoin'; did you mean 'version'"),
        ({"version": "nobody"}, "one of the labels stable, canary, got 'nobody'"),
        ({"percent": 101}, "percent is to be a number from 0 to 100"),
        ({"queue": 0.5}, "queue is to be a number from 1 to 4096"),
        ({"redact": "x"}, "redact is to be a list"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfig, match=text):
        parse_shadow(table, {})


def test_a_label_means_whoever_is_called_so_now() -> None:
    shadow = parse_shadow({}, {})

    assert shadow == Shadow("canary")
    assert shadow.version_in({"canary": 3}) == 3
    assert shadow.version_in({}) is None
