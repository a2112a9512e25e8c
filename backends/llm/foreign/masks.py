"""What a mask of transformers lets a token see, from the function that it is made with."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FAR = 1 << 20
"""A position behind all windows."""


class OtherMaskError(Exception):
    """A mask that is neither causal nor a window."""


def window_of(mask_function: Callable[..., Any]) -> int:
    """How many tokens one sees, itself included; 0: all before it. Raises OtherMaskError."""
    sees = _asking(mask_function)
    window = 0
    if not bool(sees(FAR, 0)):
        hidden, seen = 0, FAR
        while seen - hidden > 1:
            middle = (hidden + seen) // 2
            hidden, seen = (hidden, middle) if bool(sees(FAR, middle)) else (middle, seen)
        window = FAR - seen + 1
    if not torch.equal(sees(*_GRID), _expected(window, *_GRID)):
        raise OtherMaskError
    for width in (window, window + 1, 2 * window + 3):
        places = torch.arange(max(0, width - 3), width + 4)
        grid = (places[:, None], torch.cat((torch.arange(4), places))[None])
        if not torch.equal(sees(*grid), _expected(window, *grid)):
            raise OtherMaskError
    return window


_GRID = (torch.arange(40)[:, None], torch.arange(40)[None])


def _expected(window: int, queries: Tensor, keys: Tensor) -> Tensor:
    is_seen = keys <= queries
    return is_seen & (keys > queries - window) if window else is_seen


def _asking(mask_function: Callable[..., Any]) -> Callable[[Any, Any], Tensor]:
    zero = torch.zeros((), dtype=torch.int64)

    def sees(queries: Any, keys: Any) -> Tensor:
        queries, keys = torch.as_tensor(queries), torch.as_tensor(keys)
        try:
            found = mask_function(zero, zero, queries, keys)
        except (IndexError, TypeError, RuntimeError) as error:
            raise OtherMaskError from error
        return torch.as_tensor(found).broadcast_to((queries + keys).shape)

    return sees
