"""Who gets which version."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from made_models import NoExecutor, made_model

from trivet.backends.api import Executor, InvalidRequest, NotFound, Signature
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.models.model import Model
from trivet.server.models.routing import Admitted, Choice, Nobody, Routers, VersionRouter
from trivet.server.models.traffic import EVEN, Traffic, parse_traffic

SPLIT = parse_traffic("[labels]\nstable = 1\ncanary = 2\n[split]\nstable = 90\ncanary = 10")


class Asks(Nobody):
    """Has some keys."""

    def __init__(self, **given: str) -> None:
        self._given = given

    def given(self, source: str) -> str | None:  # type: ignore[override]
        return self._given.get(source)


class Base(NoExecutor):
    """Computes adapters, too."""

    adapter_troubles: Mapping[str, str] = {"broken": "it is broken"}

    def __init__(self, *adapters: str) -> None:
        self.adapters: Mapping[str, Executor] = {name: NoExecutor() for name in adapters}

    async def follow_adapters(self) -> None:
        """There is no folder."""

    async def load_adapter(self, name: str, folder: str, *, in_place: bool) -> None:
        """Not asked."""

    async def unload_adapter(self, name: str) -> None:
        """Not asked."""


def versions(*numbers: int) -> dict[int, Model]:
    signature = Signature.from_config(ModelConfig())
    return {number: made_model("m", signature, version=number) for number in numbers}


def chosen(router: VersionRouter, *keys: str) -> Counter[int]:
    return Counter(router.choose(None, key).version for key in keys)


def routers(traffic: Traffic, *numbers: int) -> Routers:
    def why_none(name: str) -> NotFound:
        return NotFound(f"{name} is not here")

    made = Routers(why_none)
    made.replace("m", versions(*numbers), {}, traffic)
    return made


def test_requests_that_name_none_are_shared_out() -> None:
    router = VersionRouter(versions(1, 2, 3), traffic=SPLIT)

    assert chosen(router, *[""] * 100) == {1: 90, 2: 10}
    assert 50 < chosen(router, *map(str, range(1000)))[2] < 150
    assert router.choose(3, "").choice is Choice.NAMED
    assert router.choose(None, "a").choice is Choice.SPLIT


def test_a_key_that_is_meant_for_it_counts_before_the_requests_own() -> None:
    traffic = parse_traffic('sticky = ["user", "header:x"]\n[split]\n1 = 50\n2 = 50')
    router = VersionRouter(versions(1, 2), traffic=traffic)
    by_user = {router.choose(None, str(i), Asks(user="anna")).version for i in range(50)}
    by_header = {router.choose(None, str(i), Asks(**{"header:x": "a"})).version for i in range(50)}

    assert len(by_user) == len(by_header) == 1
    assert len(chosen(router, *map(str, range(50)))) == 2


def test_an_adapter_may_be_what_requests_stick_to() -> None:
    adapters = [f"a{number}" for number in range(16)]
    found = {v: replace(m, executor=Base(*adapters)) for v, m in versions(1, 2).items()}
    made = routers(EVEN)
    made.replace(
        "m", found, {}, parse_traffic('sticky = ["adapter", "user"]\n[split]\n1 = 50\n2 = 50')
    )

    def asked(name: str) -> set[int]:
        return {made.resolve(name, None, str(i), Asks(user=str(i))).version for i in range(20)}

    each = [asked(f"m:{adapter}") for adapter in adapters]
    assert sorted({tuple(one) for one in each}) == [(1,), (2,)]
    assert asked("m") == {1, 2}


def test_the_share_of_what_does_not_serve_goes_to_the_others() -> None:
    router = VersionRouter(versions(1), traffic=SPLIT)

    assert chosen(router, *[""] * 10) == {1: 10}
    assert VersionRouter(versions(7), traffic=SPLIT).choose(None, "").choice is Choice.NEWEST


def test_labels() -> None:
    router = VersionRouter(versions(1, 2), traffic=SPLIT)
    admitted = router.choose("canary", "")

    assert (admitted.version, admitted.choice, admitted.label) == (2, Choice.LABEL, "canary")
    assert admitted.told == {"x-trivet-version": "2", "x-trivet-route": "label:canary"}
    with pytest.raises(NotFound, match="1, 2, canary, stable; did you mean 'canary'"):
        router.choose("canari", "")


def test_a_label_of_what_does_not_serve_says_so() -> None:
    router = VersionRouter(versions(1), {2: "it is loading"}, SPLIT)

    with pytest.raises(NotFound, match="'canary' now: that is version 2; it is loading"):
        router.choose("canary", "")


def test_without_labels_a_word_is_no_version() -> None:
    with pytest.raises(InvalidRequest, match="failed to get model version from specified version"):
        VersionRouter(versions(1)).choose("latest", "")


def test_nothing_is_told_of_a_model_without_traffic() -> None:
    assert VersionRouter(versions(1)).choose(None, "").told == {}


def test_a_name_may_end_in_a_label_unless_a_model_is_called_so() -> None:
    made = routers(SPLIT, 1, 2)
    made.replace("m@stable", versions(5), {}, EVEN)

    def version(name: str) -> Admitted:
        return made.resolve(name, None)

    assert version("m@canary").version == 2
    assert version("m@stable").version == 5
    for name in ("m@", "@canary", "x@canary", "m@3", "m@canary@x"):
        with pytest.raises(NotFound, match="is not here"):
            version(name)
    with pytest.raises(InvalidRequest, match="names version 'canary', and the request version '1'"):
        made.resolve("m@canary", 1)


def test_descriptions_are_of_what_most_get_and_count_nothing() -> None:
    made = routers(SPLIT, 1, 2)

    assert {made.describe("m", None).version for _ in range(20)} == {1}
    assert [made.resolve("m", None).version for _ in range(10)].count(2) == 1


def test_a_label_and_an_adapter_stand_together() -> None:
    made = routers(SPLIT)
    signature = Signature.from_config(ModelConfig())
    bases = {
        number: made_model("m", signature, Base("noted", *names), version=number)
        for number, names in ((1, ()), (2, ("newer",)))
    }
    made.replace("m", bases, {}, SPLIT)

    for find in (made.resolve, made.describe):
        found = find("m@canary:noted", None)
        assert (found.name, found.version, found.choice) == ("m:noted", 2, Choice.LABEL)
        assert find("m@canary:newer", None).version == 2, "which the usual version has not"
        assert find("noted", None).version == find("m:noted", None).version == 1
        for name, why in (
            ("m@stable:newer", "version 1 of 'm' has no adapter 'newer'"),
            ("m@canary:broken", "it is broken"),
            ("m@canary:", "is not here"),
            ("x@canary:noted", "is not here"),
            ("m@none:noted", "no version with label 'none'"),
        ):
            with pytest.raises(NotFound, match=why):
                find(name, None)
        with pytest.raises(InvalidRequest, match="the request version '1' besides"):
            find("m@canary:noted", 1)


def test_each_arm_is_within_one_request_of_its_share_over_loads_of_the_model() -> None:
    traffic = parse_traffic("[split]\n1 = 50\n2 = 30\n3 = 20")
    made = routers(traffic, 1, 2, 3)
    counts: Counter[int] = Counter()

    for number in range(1, 301):
        counts[made.resolve("m", None).version] += 1
        lacks = [number * share - counts[arm] for arm, share in ((1, 0.5), (2, 0.3), (3, 0.2))]
        assert max(map(abs, lacks)) <= 1
        if number % 10 == 0:
            made.replace("m", {}, {}, traffic)
        made.replace("m", versions(1, 2, 3), {}, traffic)


def test_other_shares_begin_anew_and_who_is_away_is_owed_nothing_it_could_not_have() -> None:
    traffic = parse_traffic("[split]\n1 = 50\n2 = 50")
    made = routers(traffic, 1, 2)
    first = made.resolve("m", None).version
    made.replace("m", versions(first), {}, traffic)
    assert {made.resolve("m", None).version for _ in range(9)} == {first}
    made.replace("m", versions(1, 2), {}, traffic)
    assert made.resolve("m", None).version == 3 - first, "whose turn it was"
    made.resolve("m", None)
    made.resolve("m", None)

    made.replace("m", versions(1, 2), {}, parse_traffic("[split]\n1 = 10\n2 = 90"))
    assert [made.resolve("m", None).version for _ in range(10)].count(1) == 1
