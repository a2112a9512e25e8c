"""Parts of the compiled step by themselves give what torch gives."""

from itertools import accumulate

import pytest
import torch
from native_models import NATIVE

from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.families.kinds import Activation, GroupedAttention, RmsNorm
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.native.alone import NativeMlp, NativeNorm, NativeProduct
from trivet.backends.llm.native.alone_attention import (
    NativeAttention,
    NativeAttentionBlock,
    attention_why_not,
    block_why_not,
)
from trivet.backends.llm.native.library import Native

pytestmark = pytest.mark.skipif(isinstance(NATIVE, str), reason=str(NATIVE))
BLOCK = 16
SPANS = ((69, 1), (30, 21), (0, 5), (3, 16), (7, 1))
"""Tokens of each sequence before the step, and in it."""


@pytest.fixture(params=["amx", "avx512"])
def native(request: pytest.FixtureRequest) -> Native:
    assert isinstance(NATIVE, Native)
    if request.param == "amx" and not NATIVE.has_amx:
        pytest.skip("this processor has no AMX")
    return Native(NATIVE.functions, request.param == "amx")


@pytest.mark.parametrize("rows", [0, 1, 16, 17, 45, 130])
@pytest.mark.parametrize("outputs", [96, 50])
def test_a_product_is_rounded_once(rows: int, outputs: int, native: Native) -> None:
    torch.manual_seed(rows)
    weight, bias = torch.randn(outputs, 64).bfloat16(), torch.randn(outputs).bfloat16()
    states = torch.randn(rows, 64).bfloat16()
    exact = states.double() @ weight.double().t()
    found = NativeProduct(native, weight, None)(states)
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-3)
    found = NativeProduct(native, weight, bias)(states)
    torch.testing.assert_close(found.double(), exact + bias.double(), rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("rows", [0, 3, 45])
def test_a_gated_mlp_is_what_its_layers_give(rows: int, native: Native) -> None:
    torch.manual_seed(rows)
    gate, up, down = (torch.randn(*shape) * 0.2 for shape in ((96, 64), (96, 64), (64, 96)))
    bias, states = torch.randn(192), torch.randn(2, rows, 64).bfloat16()
    into = NativeProduct(native, torch.cat((gate, up)).bfloat16(), bias.bfloat16(), is_gated=True)
    mlp = NativeMlp(native, Activation.GELU, into, NativeProduct(native, down.bfloat16(), None))
    exact = states.float()
    gates, ups = (exact @ torch.cat((gate, up)).bfloat16().float().t() + bias).chunk(2, dim=-1)
    wanted = (torch.nn.functional.gelu(gates) * ups) @ down.bfloat16().float().t()
    torch.testing.assert_close(mlp(states).float(), wanted, rtol=0.05, atol=0.1)
    turns = into(states).view(2, rows, 6, 2, 16)
    torch.testing.assert_close(turns[..., 1, :].flatten(-2).float(), ups, rtol=2**-7, atol=0.02)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_norms_round_as_torchs_do(offset: float, native: Native) -> None:
    weight, states = torch.randn(80).bfloat16(), torch.randn(3, 70, 80).bfloat16()
    normed = torch.nn.functional.rms_norm(states.float(), (80,), eps=1e-5)
    wanted = normed * (1 + weight.float()) if offset else normed.bfloat16() * weight
    found = NativeNorm(native, RmsNorm(1e-5, offset=offset), weight)(states)
    torch.testing.assert_close(found.float(), wanted.float(), rtol=2**-7, atol=1e-6)


def test_states_of_another_type_are_refused(native: Native) -> None:
    product = NativeProduct(native, torch.randn(32, 32).bfloat16(), None)
    with pytest.raises(TypeError, match=r"states of torch\.float32"):
        product(torch.randn(2, 32))


def step(spans: tuple[tuple[int, int], ...]) -> StepInputs:
    """Blocks of all sequences lie in turns."""
    places = [range(done, done + count) for done, count in spans]
    most = -(-max(done + count for done, count in spans) // BLOCK)
    tables = [[1 + len(spans) * at + row for at in range(most)] for row in range(len(spans))]
    return StepInputs(
        token_ids=torch.zeros(sum(count for _, count in spans), dtype=torch.int64),
        positions=torch.tensor([at for span in places for at in span]),
        slot_mapping=torch.tensor([
            table[at // BLOCK] * BLOCK + at % BLOCK
            for table, span in zip(tables, places, strict=True)
            for at in span
        ]),
        query_starts=torch.tensor([0, *accumulate(count for _, count in spans)]).int(),
        sequence_lengths=torch.tensor([done + count for done, count in spans]).int(),
        block_tables=torch.tensor(tables).int(),
        sample_rows=torch.arange(len(spans)),
    )  # fmt: skip


def caches(kind: GroupedAttention, inputs: StepInputs) -> tuple[KvCache, KvCache]:
    """The same numbers, in float32 and in bfloat16."""
    torch.manual_seed(5)
    shape = LlamaShape(
        architecture="llama", vocabulary_size=8, hidden_size=64, intermediate_size=8, num_layers=1,
        num_heads=kind.num_heads, num_kv_heads=kind.num_kv_heads, head_dim=kind.head_dim,
        max_positions=128, rms_norm_eps=1e-5, rope_theta=1e4,
    )  # fmt: skip
    exact, rounded = (
        KvCache(shape.config(), 1 + inputs.block_tables.numel(), BLOCK, dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    rounded.layers[0][:, 1:].normal_()
    exact.layers[0].copy_(rounded.layers[0])
    return exact, rounded


both_spans = pytest.mark.parametrize("spans", [SPANS, SPANS[:1]], ids=["chunks", "one token"])
both_kinds = pytest.mark.parametrize(
    "kind",
    [
        GroupedAttention(4, 2, 64, None),
        GroupedAttention(6, 2, 80, None, window=9, score_multiplier=0.3),
    ],
    ids=["plain", "window"],
)


@both_spans
@both_kinds
def test_attention_is_what_torch_computes_in_float32(
    kind: GroupedAttention, spans: tuple[tuple[int, int], ...], native: Native
) -> None:
    inputs, count = step(spans), sum(count for _, count in spans)
    exact, rounded = caches(kind, inputs)
    assert not attention_why_not(rounded, [kind])
    query, key, value = (
        torch.randn(count, heads, kind.head_dim).bfloat16()
        for heads in (kind.num_heads, kind.num_kv_heads, kind.num_kv_heads)
    )
    ours, torchs = NativeAttention(rounded, [kind], native), TorchAttention(exact, [kind])
    for each in (ours, torchs):
        each.begin(inputs)
    wanted = torchs.attend(0, query.float(), key.float(), value.float())
    assert wanted.std() > 0.1
    found = ours.attend(0, query, key, value).float()
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)
    torch.testing.assert_close(rounded.layers[0].float(), exact.layers[0])


@both_spans
@both_kinds
@pytest.mark.parametrize("rotated", [0, 32, None])
def test_an_attention_with_its_products_is_what_torch_computes_of_them(
    kind: GroupedAttention,
    spans: tuple[tuple[int, int], ...],
    rotated: int | None,
    native: Native,
) -> None:
    inputs, count = step(spans), sum(count for _, count in spans)
    exact, rounded = caches(kind, inputs)
    size, heads, kv_heads = kind.head_dim, kind.num_heads, kind.num_kv_heads
    turned = size if rotated is None else rotated
    qkv = (torch.randn((heads + 2 * kv_heads) * size, 96) * 0.1).bfloat16()
    out = (torch.randn(96, heads * size) * 0.1).bfloat16()
    qkv_bias, out_bias = torch.randn(len(qkv)).bfloat16(), torch.randn(96).bfloat16()
    into, output = NativeProduct(native, qkv, qkv_bias), NativeProduct(native, out, out_bias)
    assert not block_why_not(kind, into, output)
    assert block_why_not(kind, output, into)
    assert block_why_not(kind, into, into)
    angles = torch.rand(1, count, turned // 2).repeat(1, 1, 2)
    cosines, sines = angles.cos().bfloat16(), angles.sin().bfloat16()
    states = torch.randn(1, count, 96).bfloat16()
    made = states.float() @ qkv.float().t() + qkv_bias.float()
    turns = made[0].reshape(count, -1, size).split_with_sizes([heads, kv_heads, kv_heads], 1)
    query, key, value = (rotated_by(turns[0], angles), rotated_by(turns[1], angles), turns[2])
    torchs, ours = TorchAttention(exact, [kind]), NativeAttention(rounded, [kind], native)
    for each in (ours, torchs):
        each.begin(inputs)
    wanted = torchs.attend(0, query, key, value).flatten(1) @ out.float().t() + out_bias.float()
    block = NativeAttentionBlock(ours, 0, into, output, turned)
    found = block(states, *((cosines, sines) if turned else (None, None)))
    assert (found[0].float() - wanted).norm() < 0.02 * wanted.norm()
    torch.testing.assert_close(rounded.layers[0].float(), exact.layers[0], atol=0.02, rtol=0.02)


def rotated_by(heads: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    size = angles.shape[-1]
    first, second = heads[..., :size].chunk(2, -1)
    swapped = torch.cat((-second, first), -1)
    turned = heads[..., :size] * angles[0, :, None].cos() + swapped * angles[0, :, None].sin()
    return torch.cat((turned, heads[..., size:]), -1)


def test_what_changes_scores_is_not_computed() -> None:
    assert isinstance(NATIVE, Native)
    config = LlamaShape(
        architecture="llama", vocabulary_size=8, hidden_size=64, intermediate_size=8, num_layers=1,
        num_heads=2, num_kv_heads=2, head_dim=32, max_positions=128, rms_norm_eps=1e-5,
        rope_theta=1e4,
    ).config()  # fmt: skip
    kind = GroupedAttention(2, 2, 32, None)
    cache = KvCache(config, 2, BLOCK, torch.bfloat16)
    assert not attention_why_not(cache, [kind])
    for other in (
        GroupedAttention(2, 2, 32, None, score_cap=5.0),
        GroupedAttention(2, 2, 32, None, head_norm=RmsNorm(1e-5)),
        GroupedAttention(2, 2, 40, None),
    ):
        assert attention_why_not(cache, [other])
    assert attention_why_not(KvCache(config, 2, BLOCK, torch.float32), [kind])
