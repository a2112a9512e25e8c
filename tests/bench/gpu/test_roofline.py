"""Floors and ceilings, against figures that were worked out by hand for an H100's data sheet."""

import pytest

from bench.gpu.llama import LLAMA, weight_shapes
from bench.gpu.roofline import (
    Numbers,
    Rates,
    body_parameters,
    ceiling_per_s,
    head_parameters,
    step_floor_s,
    token_bytes,
)

SHEET = Rates(3.35e12, 989e12)
SHEET_8BIT = Rates(3.35e12, 1979e12)
EIGHT_BIT = Numbers(weight_bytes=1, cache_bytes=1)


def test_the_models_size_is_that_of_its_weights() -> None:
    shapes = weight_shapes(LLAMA)
    total = sum(x[0] * x[1] for x in shapes.values() if len(x) == 2)
    assert total == body_parameters(LLAMA) + 2 * head_parameters(LLAMA)
    assert body_parameters(LLAMA) == pytest.approx(6.979e9, rel=1e-3)
    assert head_parameters(LLAMA) == pytest.approx(0.525e9, rel=1e-3)
    assert token_bytes(LLAMA, Numbers()) == 131_072


@pytest.mark.parametrize(
    ("batch", "numbers", "wanted_ms"),
    [(1, Numbers(), 4.52), (32, Numbers(), 5.76), (128, Numbers(), 9.61), (256, Numbers(), 14.74),
     (1, EIGHT_BIT, 2.42), (32, EIGHT_BIT, 3.04), (256, EIGHT_BIT, 7.53),
     (128, Numbers(weight_bytes=1), 7.53)],
)  # fmt: skip
def test_floors_of_a_decode_step(batch: int, numbers: Numbers, wanted_ms: float) -> None:
    rates = SHEET_8BIT if numbers.weight_bytes == 1 else SHEET
    found_ms = step_floor_s(LLAMA, batch, 1024, rates, numbers) * 1e3
    assert found_ms == pytest.approx(wanted_ms, abs=0.01)


def test_products_bind_where_there_are_many_rows() -> None:
    slow = Rates(3.35e12, 100e12)
    few, many = (step_floor_s(LLAMA, batch, 0, slow, Numbers()) for batch in (1, 1000))
    assert few == step_floor_s(LLAMA, 1, 0, SHEET, Numbers())
    assert many == pytest.approx(2 * 7.5e9 * 1000 / 100e12, rel=1e-2)


@pytest.mark.parametrize(
    ("prompt", "output", "wanted"),
    [(1000, 1000, 24_714), (128, 2048, 38_463), (2048, 128, 6_096), (500, 2000, 28_524)],
)
def test_ceilings_of_whole_requests(prompt: int, output: int, wanted: int) -> None:
    found = ceiling_per_s(
        LLAMA, prompt, output, SHEET_8BIT, EIGHT_BIT, cache_tokens=914_000, most_sequences=2048
    )
    assert found == pytest.approx(wanted, rel=5e-3)


def test_fewer_requests_at_a_time_have_a_lower_ceiling() -> None:
    found = [
        ceiling_per_s(LLAMA, 128, 2048, SHEET, Numbers(), cache_tokens=400_000, most_sequences=most)
        for most in (64, 256, 512)
    ]
    assert found[0] < found[1] < found[2]
