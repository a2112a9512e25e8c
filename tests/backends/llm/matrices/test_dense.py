"""Plain matrices: their products are those of `functional.linear`, whatever the processor has."""

import pytest
import torch
from torch.nn import functional

from trivet.backends.llm.matrices.dense import Dense


@pytest.mark.parametrize("num_rows", [1, 5])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_product_in_bfloat16_is_that_of_a_linear_layer(num_rows: int, has_bias: bool) -> None:
    torch.manual_seed(num_rows)
    weights = torch.randn(32, 64, dtype=torch.bfloat16)
    bias = torch.randn(32, dtype=torch.bfloat16) if has_bias else None
    rows = torch.randn(num_rows, 64, dtype=torch.bfloat16)
    found = Dense(weights).product(bias)(rows)
    torch.testing.assert_close(found, functional.linear(rows, weights, bias))


def test_onednn_is_left_alone_where_it_refuses_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on x86 processors without AVX-512, whose packing raises."""

    def refuses(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("bf16 path needs the cpu support avx512bw")

    class Ops:
        _reorder_linear_weight = staticmethod(refuses)
        _is_mkldnn_bf16_supported = staticmethod(lambda: False)

    monkeypatch.setattr(torch.ops, "mkldnn", Ops)
    weights, rows = torch.ones(4, 8, dtype=torch.bfloat16), torch.ones(2, 8, dtype=torch.bfloat16)
    assert Dense(weights).product()(rows).tolist() == [[8.0] * 4] * 2
