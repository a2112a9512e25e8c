"""Waits for a device are counted where they are made; the meta device stands in for a GPU."""

from collections.abc import Iterator

import pytest
import torch

from trivet.backends.llm.device.border import (
    Waits,
    brought,
    current_waits,
    listed,
    placed,
    true_places,
)

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def waits() -> Iterator[Waits]:
    made = Waits()
    token = current_waits.set(made)
    yield made
    current_waits.reset(token)


def test_what_is_brought_to_a_device_is_waited_for(waits: Waits) -> None:
    assert brought(torch.ones(3), META).device == META
    assert placed([1, 2], META).device == META
    assert waits.count == 2


def test_nothing_waits_where_host_and_device_are_one(waits: Waits) -> None:
    values = brought(torch.tensor([0.0, 2.0]), CPU)
    assert listed(values) == [0, 2]
    assert true_places(values > 1) == [1]
    assert placed([3], CPU).tolist() == [3]
    assert waits.count == 0


def test_a_thread_that_does_not_count_may_wait() -> None:
    assert placed([1], META).shape == (1,)
