"""A name means the only model that bears it; with namespaces it may be ambiguous."""

import pytest

from trivet.backends.api import InvalidRequest, ModelNotFound
from trivet.backends.api.naming import key_of, name_in, namespace_in
from trivet.server.models.composition import Composition
from trivet.server.models.registry import Registry
from trivet.server.repository.names import Names, Reference


@pytest.mark.parametrize(
    ("namespace", "key"), [("", "m"), ("/srv/a", "/srv/a::m"), ("a::b", "a::b::m")]
)
def test_a_key_has_namespace_and_name_in_it(namespace: str, key: str) -> None:
    assert key_of(namespace, "m") == key
    assert (namespace_in(key), name_in(key)) == (namespace, "m")


def test_without_namespaces_a_name_is_what_it_means() -> None:
    names = Names(["m"])
    for reference in (Reference("m"), Reference("m", ("", "/srv/a")), Reference("nobody")):
        assert names.find(reference) == reference.name
    names.give_up("m")
    assert names.find(Reference("m")) == "m"


def test_namespaces_are_looked_through_in_order_then_all() -> None:
    names = Names(["a::m", "b::m", "b::only"])
    assert names.find(Reference("m", ("a", "b"))) == "a::m"
    assert names.find(Reference("m", ("c", "b"))) == "b::m"
    assert names.find(Reference("only", ("a",))) == "b::only"
    with pytest.raises(InvalidRequest, match=r"'a' and 'b'.*ambiguity.*'a::m' or 'b::m'"):
        names.find(Reference("m", ("c",)))


def test_what_a_model_is_shown_as_can_be_asked() -> None:
    names = Names(["a::m", "b::m", "b::only"])
    assert [names.shown(key) for key in ("a::m", "b::only")] == ["a::m", "only"]
    names.give_up("b::m")
    assert names.shown("a::m") == "m"


def test_only_ensembles_whose_names_mean_others_now_are_moved() -> None:
    names = Names(["a::own", "a::m", "b::m", "a::e", "c::e"])
    composition = Composition(names)
    composition.made_of("a::e", frozenset({Reference("m", ("a",))}))
    composition.made_of("c::e", frozenset({Reference("own", ("c",))}))
    assert composition.users("a::m") == ["a::e"]
    names.give_up("b::m")
    assert composition.moved() == []
    names.take("c::own")
    assert composition.moved() == ["c::e"]


def test_a_name_that_nobody_bears_is_not_found() -> None:
    registry = Registry()
    registry.take("a::m")
    registry.give_up("a::m")
    with pytest.raises(ModelNotFound, match="'m' is not found"):
        registry.routers.resolve("m", None)
