"""Adapters are found by their base's name and their own, and by their own where no other has it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from made_models import NoExecutor, made_model

from trivet.backends.api import (
    Executor,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    Signature,
)
from trivet.server.models.adapters import Adapters
from trivet.server.models.registry import Registry


@dataclass
class Base(NoExecutor):
    """One with adapters."""

    adapters: dict[str, Executor] = field(default_factory=dict)
    adapter_troubles: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def follow_adapters(self) -> None:
        pass

    async def load_adapter(self, name: str, folder: str, *, in_place: bool) -> None:
        self.asked.append((name, folder, str(in_place)))

    async def unload_adapter(self, name: str) -> None:
        self.asked.append((name,))

    __hash__ = object.__hash__


def base(*adapters: str, **troubles: str) -> Base:
    return Base({name: NoExecutor() for name in adapters}, troubles)


def registry(**executors: Executor) -> Registry:
    made = Registry()
    for name, executor in executors.items():
        made.publish(made_model(name, Signature({}, {}, 0, decoupled=True), executor))
    return made


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def found(site: Registry, name: str) -> str:
    return site.routers.resolve(name, None).model.name


def test_an_adapter_is_found_by_both_names() -> None:
    site = registry(large=base("sql"), other=NoExecutor())
    model = site.routers.resolve("sql", None).model
    assert model.name == "large:sql"
    assert isinstance(model.executor, NoExecutor)
    assert found(site, "large:sql") == "large:sql"
    assert found(site, "large") == "large"
    for name in ("poems", "large:poems", "other:sql", "nobody:sql", ":sql", "large:"):
        with pytest.raises(ModelNotFound):
            found(site, name)


def test_a_model_bears_its_name_before_an_adapter_does() -> None:
    site = registry(large=base("other"), other=NoExecutor())
    assert found(site, "other") == "other"
    assert found(site, "large:other") == "large:other"
    (row,) = Adapters(site).index(ready_only=False)
    assert row.reason.startswith("it is asked as 'large:other' only")


def test_adapters_of_one_name_are_told_apart_by_their_bases() -> None:
    site = registry(large=base("sql"), small=base("sql"))
    with pytest.raises(InvalidRequest, match=r"2 adapters 'sql'.*'large:sql' or 'small:sql'"):
        found(site, "sql")
    assert found(site, "small:sql") == "small:sql"


def test_one_that_did_not_load_says_why() -> None:
    site = registry(large=base("good", bad="it is torn"))
    for name in ("bad", "large:bad"):
        with pytest.raises(NotFound, match="it is torn"):
            found(site, name)
    rows = {row.name: (row.state, row.reason) for row in Adapters(site).index(ready_only=False)}
    assert rows == {"large:good": ("READY", ""), "large:bad": ("UNAVAILABLE", "it is torn")}
    assert [row.name for row in Adapters(site).index(ready_only=True)] == ["large:good"]


def test_a_base_that_is_unloaded_takes_its_adapters_along() -> None:
    site = registry(large=base("sql"))
    site.withdraw("large", 1)
    with pytest.raises(ModelNotFound):
        found(site, "sql")


def test_loads_go_to_the_base_that_is_meant() -> None:
    site = registry(large=base("sql"), small=base(), other=NoExecutor())
    large, small = (cast(Base, site.models[name][1].executor) for name in ("large", "small"))
    adapters = Adapters(site)
    run(adapters.load("small:x", "folder", "", in_place=False))
    run(adapters.load("y", "folder", "large", in_place=True))
    run(adapters.unload("sql", ""))
    assert small.asked == [("x", "folder", "False")]
    assert large.asked == [("y", "folder", "True"), ("sql",)]
    with pytest.raises(InvalidRequest, match="2 models may be meant"):
        run(adapters.load("z", "folder", "", in_place=False))
    with pytest.raises(InvalidRequest, match="'other' is a model"):
        run(adapters.load("other", "folder", "large", in_place=False))
    with pytest.raises(ModelNotFound, match="'other' is no model that takes adapters"):
        run(adapters.load("other:x", "folder", "", in_place=False))
    with pytest.raises(NotFound, match="cannot be found"):
        run(adapters.unload("nowhere", ""))
