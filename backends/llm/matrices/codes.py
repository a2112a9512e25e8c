"""What codes of few bits are worth."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Code:
    """What a code is worth before it is scaled: `code - zero`, or what a table says."""

    bits: int
    """2, 3, 4, 5, 6 or 8."""
    zero: int = 0
    table: tuple[float, ...] = ()
    """2 ** bits numbers in place of `code - zero`; empty: there is none."""


_ALL_BYTES = torch.arange(256, dtype=torch.uint8)
E4M3 = Code(8, table=tuple(_ALL_BYTES.view(torch.float8_e4m3fn).float().tolist()))
"""8-bit floats: of grouped matrices those whose blocks have scales."""
