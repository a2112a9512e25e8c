"""What is read of the functions that transformers makes masks with."""

from typing import Any

import pytest
import torch
from transformers import masking_utils

from trivet.backends.llm.foreign.masks import OtherMaskError, window_of


@pytest.mark.parametrize("window", [1, 2, 16, 17, 1000, 4096, 131072])
def test_a_window_is_found(window: int) -> None:
    assert window_of(masking_utils.sliding_window_causal_mask_function(window)) == window


def test_a_causal_mask_has_none() -> None:
    assert window_of(masking_utils.causal_mask_function) == 0


@pytest.mark.parametrize(
    "mask",
    [
        masking_utils.bidirectional_mask_function,
        masking_utils.chunked_causal_mask_function(8, torch.zeros(1, dtype=torch.int64)),
        masking_utils.chunked_causal_mask_function(8192, torch.zeros(1, dtype=torch.int64)),
        masking_utils.sliding_window_bidirectional_mask_function(16),
        masking_utils.or_masks(
            masking_utils.causal_mask_function,
            lambda _batch, _head, query, key: (query < 5) & (key < 5),
        ),
    ],
)
def test_other_masks_are_told_apart(mask: Any) -> None:
    with pytest.raises(OtherMaskError):
        window_of(mask)
