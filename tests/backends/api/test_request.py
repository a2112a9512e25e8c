"""Requests are values: nobody writes to one that has been made."""

import pytest
from values import KINDS, frozen_values

from trivet.backends.api import CheckedRequest, InferRequest, RequestContext
from trivet.backends.api.value import changed


def test_the_tests_see_who_writes_to_a_request() -> None:
    made = (InferRequest("m", None, "", {}), RequestContext(), CheckedRequest("m", 1, "", {}))
    assert tuple(map(type, made)) == KINDS
    with frozen_values():
        for each in made:
            name = type(each).__slots__[0]  # type: ignore[union-attr] # slotted classes
            with pytest.raises(AttributeError, match=r"test_request\.py"):
                setattr(each, name, None)


def test_a_changed_copy_is_another_request() -> None:
    request = InferRequest("m", None, "a", {})
    with frozen_values():
        other = changed(request, id="b")
    assert (request.id, other.id, other.inputs) == ("a", "b", request.inputs)


@pytest.mark.parametrize(("sequence", "key"), [(0, "id"), (7, 7), ("s", "s")])
def test_the_choice_of_a_version_sticks_to_the_sequence_or_else_the_request(
    sequence: int | str, key: int | str
) -> None:
    assert InferRequest("m", None, "id", {}, sequence_id=sequence).key == key
