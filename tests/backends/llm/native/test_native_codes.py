"""Codes of few bits in the compiled step: as near to the numbers that they stand for as rounding of
what is multiplied with them leaves it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from native_models import NATIVE, Make, error_of, family
from paged_models import LENGTHS, Paged, Steps, chunked, one_by_one, random_model, whole
from torch import Tensor

from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.bits import pack_codes as file_codes
from trivet.backends.llm.matrices.codes import E4M3, Code
from trivet.backends.llm.matrices.grouped import Grouped
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.native.packing import laid_plane, pack_codes
from trivet.backends.llm.weights.gguf_blocks import E2M1

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
SHAPE = {
    "hidden_size": 192, "intermediate_size": 160, "num_attention_heads": 6, "head_dim": 64,
    "num_key_value_heads": 2, "vocab_size": 120,
}  # fmt: skip
ROUNDED = 0.02
"""What rounding rows to 8 bits may change, relative to how much logits differ."""
IQ4 = Code(
    4,
    table=(
        -127.0,
        -104.0,
        -83.0,
        -65.0,
        -49.0,
        -35.0,
        -22.0,
        -10.0,
        1.0,
        13.0,
        25.0,
        38.0,
        53.0,
        69.0,
        89.0,
        113.0,
    ),
)
NF4 = Code(4, table=tuple(float(value) for value in torch.linspace(-1, 1, 16).pow(3)))


Packed = tuple[LlmConfig, dict[str, Stored]]


@dataclass(frozen=True)
class Form:
    """How a model's matrices are packed."""

    code: Code
    group: int = 32
    has_minimums: bool = False
    has_order: bool = False
    dtype: torch.dtype = torch.float16

    def of(self, weight: Tensor) -> Grouped:
        """Random codes, scaled to about what was there."""
        chance = torch.Generator().manual_seed(weight.shape[0] + self.code.bits)
        outputs, inputs = weight.shape
        group = inputs if inputs % self.group else self.group
        codes = torch.randint(2**self.code.bits, (outputs, inputs), generator=chance)
        if self.code == E4M3:
            codes[codes & 127 == 127] = 0  # no numbers
        shape = outputs, inputs // group
        scales = (torch.rand(shape, generator=chance) + 0.5) / 2**self.code.bits / 8
        if self.code.table:
            scales /= max(self.code.table) / 8
        least = torch.randn(shape, generator=chance) / 50
        order = torch.randperm(inputs, generator=chance) if self.has_order else None
        return Grouped.of_codes(
            codes.to(torch.uint8), scales.to(self.dtype), self.code, torch.bfloat16,
            least.to(self.dtype) if self.has_minimums else None, order,
        )  # fmt: skip


FORMS = {
    "2 bits": Form(Code(2, 1), 16, has_minimums=True),
    "3 bits": Form(Code(3, 4), 16, dtype=torch.float32),
    "4 bits": Form(Code(4, 8)),
    "4 bits, minimums": Form(Code(4), has_minimums=True, dtype=torch.float32),
    "4 bits, in another order": Form(Code(4, 8), 64, has_order=True),
    "5 bits": Form(Code(5, 16), dtype=torch.bfloat16),
    "6 bits": Form(Code(6, 32), 16, dtype=torch.float32),
    "8 bits": Form(Code(8, 128), has_minimums=True),
    "8 bits, a scale a row": Form(Code(8, 128), 1 << 20, dtype=torch.float32),
    "IQ4_NL": Form(IQ4),
    "MXFP4": Form(E2M1, dtype=torch.bfloat16),
    "NF4": Form(NF4, 64, dtype=torch.float32),
    "FP8": Form(E4M3, 64, dtype=torch.float32),
}


def packed(form: Form, others: Mapping[str, Form | None] = MappingProxyType({})) -> Packed:
    """A model whose matrices are all of codes, its tied embedding, too. `others`: by the last part
    but one of a matrix's name; None: of numbers."""
    made = random_model("Llama", SHAPE | {"tie_word_embeddings": True})
    weights: dict[str, Stored] = {}
    for name, weight in made.state_dict().items():
        numbers, own = weight.detach().bfloat16(), others.get(name.split(".")[-2], form)
        weights[name] = numbers if numbers.dim() < 2 or own is None else own.of(numbers)
    return from_hub(made.config.to_dict()), weights


def expanded(weights: Mapping[str, Stored], dtype: torch.dtype) -> dict[str, Any]:
    """As numbers."""
    return {
        name: (each if isinstance(each, Tensor) else each.expanded()).to(dtype)
        for name, each in weights.items()
    }


def prompts() -> list[list[int]]:
    return [[(7 * place + 3 * size) % SHAPE["vocab_size"] for place in range(size)]
            for size in LENGTHS]  # fmt: skip


def check(given: Packed, steps: Steps, make: Make, ids: list[list[int]] | None = None) -> None:
    """That logits are not farther from those of the exact numbers than torch's, by much."""
    (config, weights), ids = given, ids or prompts()
    exact = Paged(config, expanded(weights, torch.float32), 16, LENGTHS).run(ids, whole())
    found = torch.cat(Paged(config, weights, 16, LENGTHS, make).run(ids, steps))
    plain = torch.cat(Paged(config, weights, 16, LENGTHS).run(ids, steps))
    assert not found.isnan().any()
    assert error_of(found, torch.cat(exact)) < error_of(plain, torch.cat(exact)) + ROUNDED


@pytest.mark.parametrize("steps", [whole, chunked, one_by_one])
@pytest.mark.parametrize("name", FORMS)
def test_codes_give_what_their_numbers_give(
    name: str, steps: Callable[[], Steps], make: Make
) -> None:
    check(packed(FORMS[name]), steps(), make)


@pytest.mark.parametrize("steps", [whole, chunked, one_by_one])
def test_a_product_may_be_of_several_formats(steps: Callable[[], Steps], make: Make) -> None:
    others = {"k_proj": FORMS["6 bits"], "v_proj": None, "up_proj": FORMS["8 bits"]}
    check(packed(FORMS["4 bits"], others), steps(), make)


def test_packed_codes_lie_in_the_documented_place() -> None:
    codes = torch.randint(16, (64, 96), dtype=torch.uint8)
    planes = pack_codes(codes, 4)
    assert planes.shape == (2, 3, 8, 64)
    # Column 32 + 16 + 7, input 2 * 32 + 4 * 5 + 3: the second of two vectors that share bytes.
    byte = planes[1, 2, (8 + 5) // 2, 4 * 7 + 3]
    assert byte >> 4 == codes[32 + 16 + 7, 2 * 32 + 4 * 5 + 3]
    assert byte & 15 == codes[32 + 16 + 7, 2 * 32 + 4 * 4 + 3]


def test_a_files_rows_are_laid_as_their_codes_are_packed() -> None:
    codes = torch.randint(16, (80, 96), dtype=torch.uint8)
    order = torch.randperm(80)[:72]
    plane, _ = file_codes(codes, 4)
    filled = torch.cat((codes[order], torch.zeros(24, 96, dtype=torch.uint8)))
    assert torch.equal(laid_plane(plane, 4, order), pack_codes(filled, 4))


def test_experts_may_have_their_inputs_in_orders_of_their_own(make: Make, tmp_path: Path) -> None:
    plain = family("Mixtral", {}, tmp_path)
    form = replace(FORMS["4 bits, in another order"], group=32)
    weights: dict[str, Stored] = {
        name: form.of(weight) if ".experts." in name else weight
        for name, weight in plain.weights.items()
    }
    check((plain.config, weights), whole(), make, plain.prompts)
