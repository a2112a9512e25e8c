"""Products of packed matrices against float64: all formats, few rows and many."""

import pytest
import torch
from torch import Tensor
from triton import knobs

from trivet.backends.llm.matrices import grouped, packed_product
from trivet.backends.llm.matrices.codes import E4M3, Code
from trivet.backends.llm.matrices.fp8 import FP8
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.mixed import Mixed
from trivet.backends.llm.matrices.packed_product import PackedProduct, why_not

NF4 = tuple(float(value) for value in torch.linspace(-1, 1, 16) ** 3)
CODES = {
    "4 bits": Code(4, 8),
    "4 bits by table": Code(4, table=NF4),
    "8 bits": Code(8, 128),
    "e4m3": E4M3,
}
# The interpreter multiplies bfloat16 by its bits.
HALF = torch.float16 if knobs.runtime.interpret else torch.bfloat16
OUTPUTS = 70
"""More than a block, and no whole ones."""


def made(
    code: Code, device: torch.device, group: int, inputs: int, *, has_minimums: bool = False,
    is_ordered: bool = False, outputs: int = OUTPUTS,
) -> Grouped:  # fmt: skip
    """Of random codes and scales."""
    torch.manual_seed(3)
    codes = torch.randint(0, 1 << code.bits, (outputs, inputs), dtype=torch.uint8)
    if code == E4M3:  # without the two codes that are no number
        codes = torch.randn(outputs, inputs).to(FP8).view(torch.uint8)
    scales = (torch.rand(outputs, inputs // group) * 0.05 + 0.01).half()
    minimums = torch.randn_like(scales) * 0.1 if has_minimums else None
    order = torch.randperm(inputs) if is_ordered else None
    matrix = Grouped.of_codes(codes, scales, code, torch.float32, minimums, order)
    return matrix.to(device)


def packed(matrix: Grouped, bias: Tensor | None = None) -> PackedProduct:
    """Its product as on a GPU."""
    product = grouped._packed_product(matrix, bias)
    assert isinstance(product, PackedProduct)
    return product


def exact(rows: Tensor, matrix: Grouped, bias: Tensor | None) -> Tensor:
    product = rows.double() @ matrix.expanded().double().t()
    return product if bias is None else product + bias.double()


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("num_rows", [1, 17, 70])
@pytest.mark.parametrize("group", [32, 128])
def test_products_are_those_of_the_numbers(
    name: str, num_rows: int, group: int, device: torch.device
) -> None:
    matrix = made(CODES[name], device, group, 256)
    bias = torch.randn(OUTPUTS, device=device)
    for dtype, tolerance in ((torch.float32, 1e-4), (HALF, 4e-2)):
        rows = torch.randn(num_rows, 256, device=device).to(dtype)
        found = packed(matrix, bias.to(dtype))(rows)
        assert found.dtype == dtype
        wanted = exact(rows, matrix, bias.to(dtype))
        torch.testing.assert_close(found.double(), wanted, atol=tolerance, rtol=1e-2)


def test_minimums_orders_and_parts_of_the_inputs_count(device: torch.device) -> None:
    matrix = made(CODES["4 bits"], device, 64, 512, has_minimums=True, is_ordered=True)
    rows = torch.randn(5, 512, device=device)
    product = packed(matrix)
    assert product._sizes(5, device).num_parts > 1
    torch.testing.assert_close(product(rows).double(), exact(rows, matrix, None), atol=1e-3, rtol=0)
    # Of 8 bits, and with one scale for all inputs of an output.
    for group, inputs in ((32, 64), (96, 96)):
        matrix = made(CODES["8 bits"], device, group, inputs, has_minimums=True)
        rows = torch.randn(3, inputs, device=device)
        found = packed(matrix)(rows).double()
        torch.testing.assert_close(found, exact(rows, matrix, None), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("has_minimums", [False, True])
def test_numbers_are_expanded_for_many_rows(
    name: str, has_minimums: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = made(CODES[name], device, 32, 96, has_minimums=has_minimums)
    product = packed(matrix)
    torch.testing.assert_close(product.expanded(torch.float32), matrix.expanded())
    monkeypatch.setattr(packed_product, "MOST_ROWS", 4)
    rows = torch.randn(5, 96, device=device)
    torch.testing.assert_close(product(rows).double(), exact(rows, matrix, None), atol=1e-4, rtol=0)


def test_nothing_is_given_for_no_rows(device: torch.device) -> None:
    product = packed(made(CODES["4 bits"], device, 32, 64))
    assert product(torch.empty(0, 64, device=device)).shape == (0, OUTPUTS)


def test_other_formats_are_left_to_others() -> None:
    assert why_not(Code(4, 8), 16) == "16 inputs share a scale, no multiple of 32"
    assert why_not(Code(5, 16), 32) == "its codes have 5 bits"


def test_a_matrix_on_a_gpu_stays_packed_where_a_kernel_covers_it(device: torch.device) -> None:
    covered, other = (made(Code(bits, 8), device, 32, 64) for bits in (4, 5))
    assert packed(covered)
    assert grouped._packed_product(other, None) is None
    if device.type == "cuda":
        assert isinstance(covered.product(), PackedProduct)
        rows = torch.randn(3, 64, device=device)
        ones = torch.ones(OUTPUTS, device=device)
        both = Mixed((covered, other)).product(torch.cat((ones, ones)))(rows).double()
        wanted = [exact(rows, matrix, ones) for matrix in (covered, other)]
        torch.testing.assert_close(both, torch.cat(wanted, dim=-1), atol=1e-3, rtol=0)
