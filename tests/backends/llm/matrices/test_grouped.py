"""Matrices that stay packed: what they hold is what was put in, however they are cut and joined."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from trivet.backends.api import LoadFailed
from trivet.backends.llm.matrices.bits import pack_codes, unpack_codes
from trivet.backends.llm.matrices.codes import Code
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import INPUTS, OUTPUTS

BITS = (2, 3, 4, 5, 6, 8)
INPUTS_OF_ALL = 128


def made(
    bits: int = 4,
    *,
    outputs: int = 6,
    group: int = 32,
    has_minimums: bool = False,
    table: tuple[float, ...] = (),
    order: Tensor | None = None,
) -> Grouped:
    """Of random codes and scales."""
    torch.manual_seed(bits)
    codes = torch.randint(0, 1 << bits, (outputs, INPUTS_OF_ALL), dtype=torch.uint8)
    scales = torch.rand(outputs, INPUTS_OF_ALL // group).half()
    minimums = torch.randn_like(scales) if has_minimums else None
    code = Code(bits, table=table) if table else Code(bits, 1 << (bits - 1))
    return Grouped.of_codes(codes, scales, code, torch.float32, minimums, order)


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_packed_without_loss_in_as_many_bits(bits: int) -> None:
    codes = torch.randint(0, 1 << bits, (3, 96), dtype=torch.uint8)
    low, high = pack_codes(codes, bits)
    assert low.nbytes + (0 if high is None else high.nbytes) == codes.numel() * bits // 8
    assert torch.equal(unpack_codes(low, high, bits), codes)


def test_four_bits_lie_as_in_ggml() -> None:
    codes = torch.arange(32, dtype=torch.uint8) % 16
    low, _ = pack_codes(codes.unsqueeze(0), 4)
    assert low[0].tolist() == [codes[j] | codes[j + 16] << 4 for j in range(16)]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("has_minimums", [False, True])
def test_numbers_are_codes_times_scales(bits: int, has_minimums: bool) -> None:
    matrix = made(bits, has_minimums=has_minimums)
    expected = matrix.codes().float() - (1 << (bits - 1))
    expected *= matrix.scales.float().repeat_interleave(32, 1)
    if matrix.minimums is not None:
        expected += matrix.minimums.float().repeat_interleave(32, 1)
    assert torch.equal(matrix.expanded(), expected)
    assert matrix.nbytes < expected.nbytes / 2


def test_table_says_what_codes_are_worth() -> None:
    table = tuple(float(2**place) for place in range(16))
    matrix = made(4, table=table)
    expected = torch.tensor(table)[matrix.codes().int()]
    assert torch.equal(matrix.expanded(), expected * matrix.scales.float().repeat_interleave(32, 1))


@pytest.mark.parametrize("bits", BITS)
def test_product_is_that_of_the_numbers(bits: int) -> None:
    matrix = made(bits, has_minimums=True, order=torch.randperm(128))
    rows, bias = torch.randn(5, 128), torch.randn(6)
    expected = functional.linear(rows, matrix.expanded(), bias)
    torch.testing.assert_close(matrix.product(bias)(rows), expected, atol=1e-3, rtol=1e-4)


def test_order_says_which_input_is_at_a_place() -> None:
    order = torch.randperm(128)
    matrix = made(4, order=order)
    assert torch.equal(matrix.expanded()[:, order], matrix.in_places(torch.float32))


@pytest.mark.parametrize("bits", BITS)
def test_parts_are_cut_out_of_the_packed_bytes(bits: int) -> None:
    matrix = made(bits, has_minimums=True)
    whole = matrix.expanded()
    assert torch.equal(matrix.part(OUTPUTS, 2, 5).expanded(), whole[2:5])
    assert torch.equal(matrix.part(INPUTS, 32, 96).expanded(), whole[:, 32:96])
    assert torch.equal(matrix.reordered(torch.tensor([4, 0])).expanded(), whole[[4, 0]])


def test_part_that_splits_a_group_is_refused_with_numbers() -> None:
    with pytest.raises(LoadFailed, match=r"32 to 96 .* 4 bits .* 64 lie together, 64 of which"):
        made(4, group=64).part(INPUTS, 32, 96)
    with pytest.raises(LoadFailed, match=r"16 to 64 .* 32 lie together, 16 of which"):
        made(4, group=16).part(INPUTS, 16, 64)


def test_part_of_the_inputs_of_groups_that_were_chosen_from_all_is_refused() -> None:
    with pytest.raises(LoadFailed, match="groups of 32 inputs were chosen from all 128"):
        made(4, order=torch.randperm(128)).part(INPUTS, 32, 96)


def test_joined_matrices_lie_one_below_the_other() -> None:
    one, other = made(5), made(5, outputs=3)
    joined = one.joined([other])
    assert joined.shape == (9, 128)
    assert torch.equal(joined.expanded(), torch.cat((one.expanded(), other.expanded())))
    assert not one.can_join(made(4))
    assert not one.can_join(made(5, group=64))
    assert not one.can_join(made(5, has_minimums=True))
    assert not one.can_join(made(5, order=torch.randperm(128)))
