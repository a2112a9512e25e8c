"""Which model a request means that names none, or "tgi"."""

from types import SimpleNamespace
from typing import cast

import pytest
from scripted_model import ScriptedModel

from trivet.backends.api import Client, Generator, InvalidRequest, ModelNotFound, ModelNotReady
from trivet.server.core import Generators
from trivet.server.http.routes import Call
from trivet.server.http.tgi.models import choose
from trivet.server.models.routing import NOBODY, Key


class FakeCore:
    """Has generators by name; those in `ensembles` are never meant without it."""

    def __init__(self, *names: str, ensembles: tuple[str, ...] = ()) -> None:
        self._found: dict[str, Generator] = {name: ScriptedModel() for name in (*names, *ensembles)}
        self._unnamed = names

    def generators(self) -> dict[str, Generator]:
        return self._found

    def unnamed_generators(self) -> list[str]:
        return list(self._unnamed)

    def generator(
        self, name: str, version: int | str | None = None, key: Key = "", asker: Client = NOBODY
    ) -> tuple[Generator, dict[str, str]]:
        if name not in self._found:
            raise ModelNotFound(name)
        return self._found[name], {}

    def is_generating(self) -> bool:
        return True


def chosen(core: Generators, named: str | None = None, **headers: str) -> str:
    request = SimpleNamespace(headers=headers)
    call = cast(Call, SimpleNamespace(request=request, request_id="r", version=None))
    name, generator = choose(core, call, named)
    assert generator is core.generator(name)[0]
    return name


@pytest.mark.parametrize("named", [None, "", "tgi"])
def test_only_model_need_not_be_named(named: str | None) -> None:
    assert chosen(FakeCore("one"), named) == "one"


def test_field_beats_header_and_both_choose() -> None:
    core = FakeCore("one", "two")
    assert chosen(core, model="two") == "two"
    assert chosen(core, "one", model="two") == "one"


def test_several_models_and_no_name_is_refused_with_their_names() -> None:
    with pytest.raises(InvalidRequest, match=r"2 models generate text \(one, two\)"):
        chosen(FakeCore("two", "one"))


def test_model_that_is_called_tgi_is_meant_by_its_name() -> None:
    assert chosen(FakeCore("one", "tgi"), "tgi") == "tgi"


def test_ensemble_is_meant_by_its_name_only() -> None:
    core = FakeCore("one", ensembles=("rag",))
    assert chosen(core) == "one"
    assert chosen(core, "rag") == "rag"


def test_unknown_name_and_no_model_at_all_are_told() -> None:
    with pytest.raises(ModelNotFound):
        chosen(FakeCore("one"), "two")
    with pytest.raises(ModelNotReady, match="no model"):
        chosen(FakeCore())
