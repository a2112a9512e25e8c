"""Which kernels are taken: probed by what their functions take, with libraries that are made up."""

import sys
from collections.abc import Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest
import torch
from paged_models import LENGTHS, SHAPE, Paged, mixed, random_model, whole
from torch import Tensor

from trivet.backends.api import LoadFailed
from trivet.backends.llm.attention import libraries
from trivet.backends.llm.attention.choice import choose_attention
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.attention.libraries import missing
from trivet.backends.llm.attention.torch_reference import TorchAttention
from trivet.backends.llm.attention.triton_paged import TritonAttention
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.families.registry import from_hub
from trivet.backends.llm.matrices.matrix import Stored
from trivet.backends.llm.models.torch_decoder import TorchDecoder
from trivet.backends.llm.steps.runner import Model
from trivet.backends.llm.weights.taking import Weights

CONFIG = LlamaShape(
    architecture="llama", vocabulary_size=8, hidden_size=8, intermediate_size=8, num_layers=1,
    num_heads=4, num_kv_heads=2, head_dim=64, max_positions=256, rms_norm_eps=1e-5, rope_theta=1e4,
).config()  # fmt: skip


def cache(block_size: int = 16, dtype: torch.dtype = torch.bfloat16) -> KvCache:
    return KvCache(CONFIG, 3, block_size, dtype)


def paged(
    query: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, tables: Tensor, starts: Tensor,
    scale: float,
) -> Tensor:  # fmt: skip
    """What all of them compute, over pages, one sequence after the other."""
    output = torch.empty_like(query)
    for row, length in enumerate(lengths.tolist()):
        own = slice(int(starts[row]), int(starts[row + 1]))
        pages = tables[row].long()
        k, v = (x[pages].flatten(0, 1)[:length] for x in (keys, values))
        group = query.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", query[own], k) * scale
        count = own.stop - own.start
        hidden = torch.arange(length) > torch.arange(length - count, length).unsqueeze(1)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
        output[own] = torch.einsum("hqk,khd->qhd", weights, v)
    return output


class FakeFa3(ModuleType):
    """flash_attn_interface."""

    def __init__(self) -> None:
        super().__init__("flash_attn_interface")

    @staticmethod
    def flash_attn_with_kvcache(
        q: Tensor, k_cache: Tensor, v_cache: Tensor, cache_seqlens: Tensor, page_table: Tensor,
        cu_seqlens_q: Tensor, max_seqlen_q: int, softmax_scale: float, causal: bool,
        window_size: tuple[int, int],
    ) -> Any:  # fmt: skip
        assert causal
        assert window_size == (-1, -1)
        assert max_seqlen_q >= int((cu_seqlens_q[1:] - cu_seqlens_q[:-1]).max())
        found = paged(q, k_cache, v_cache, cache_seqlens, page_table, cu_seqlens_q, softmax_scale)
        return found, None


class OldFa3(ModuleType):
    """A build without pages."""

    @staticmethod
    def flash_attn_with_kvcache(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> None: ...


class FakeFlashInfer(ModuleType):
    """flashinfer."""

    class BatchPrefillWithPagedKVCacheWrapper:
        def __init__(self, float_workspace_buffer: Tensor, kv_layout: str) -> None:
            assert kv_layout == "NHD"

        def plan(
            self, qo_indptr: Tensor, paged_kv_indptr: Tensor, paged_kv_indices: Tensor,
            paged_kv_last_page_len: Tensor, num_qo_heads: int, num_kv_heads: int, head_dim: int,
            page_size: int, *, causal: bool, sm_scale: float, **_: Any,
        ) -> None:  # fmt: skip
            starts = paged_kv_indptr.tolist()
            counts = [end - start for start, end in pairwise(starts)]
            self.lengths = (torch.tensor(counts) - 1) * page_size + paged_kv_last_page_len
            parts = torch.split(paged_kv_indices, counts)
            self.tables = torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)
            self.starts, self.scale = qo_indptr, sm_scale

        def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor]) -> Tensor:
            return paged(q, *paged_kv_cache, self.lengths, self.tables, self.starts, self.scale)


def fake_varlen(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: None, max_q: int,
    max_k: int, *, scale: float, window_size: tuple[int, int], enable_gqa: bool,
    seqused_k: Tensor, block_table: Tensor,
) -> Tensor:  # fmt: skip
    """torch.nn.attention.varlen.varlen_attn, which has no kernel for processors."""
    assert enable_gqa
    assert window_size == (-1, 0)
    assert max_k >= int(seqused_k.max())
    return paged(query, key, value, seqused_k, block_table, cu_seq_q, scale)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", FakeFa3())
    monkeypatch.setitem(sys.modules, "flashinfer", FakeFlashInfer("flashinfer"))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", fake_varlen)


def test_our_own_kernels_are_taken_where_no_library_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert isinstance(choose_attention(CONFIG, cache()), TritonAttention)
    (told,) = [record.message for record in caplog.records]
    assert told.startswith("attention: triton; not fa3: flash_attn_interface.flash_attn_with_kv")
    assert "not varlen: its pages are multiples of 256 places, block_size is 16" in told


def test_flash_attention_3_is_taken_where_it_is(fakes: None) -> None:
    assert isinstance(choose_attention(CONFIG, cache()), libraries.Fa3Attention)


def test_a_build_that_takes_no_pages_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", OldFa3("flash_attn_interface"))
    assert isinstance(choose_attention(CONFIG, cache()), TritonAttention)
    with pytest.raises(
        LoadFailed, match=r"takes no cache_seqlens, causal, cu_seqlens_q, .*page_tab"
    ):
        choose_attention(CONFIG, cache(), "fa3")


def test_torchs_own_is_taken_for_large_pages() -> None:
    # The probe finds the signature of the torch that is installed.
    assert isinstance(choose_attention(CONFIG, cache(256)), libraries.VarlenAttention)


def test_a_cache_of_8_bits_is_read_by_our_own_kernels(fakes: None) -> None:
    assert isinstance(choose_attention(CONFIG, cache(256, torch.float8_e4m3fn)), TritonAttention)
    with pytest.raises(LoadFailed, match=r"attention 'torch' cannot .* no cache of 8-bit numbers"):
        choose_attention(CONFIG, cache(16, torch.float8_e4m3fn), "torch")


def test_plain_torch_is_taken_last_and_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    odd = from_hub(random_model("Llama", {"head_dim": 24}).config.to_dict())
    found = choose_attention(odd, KvCache(odd, 2, 16, torch.float32))
    assert isinstance(found, TorchAttention)
    assert "attention: torch, which is slow on a GPU" in caplog.text
    assert "not triton: heads are of size 24" in caplog.text


def test_a_missing_function_is_told_from_a_missing_parameter() -> None:
    said = "no_such_module.f is not there (ModuleNotFoundError)"
    assert missing("no_such_module", "f", set()) == said
    assert missing("json", "loads", {"s", "pages"}) == "json.loads takes no pages"
    assert missing("json", "loads", {"s"}) == ""


@pytest.mark.parametrize("name", ["fa3", "varlen", "flashinfer"])
def test_libraries_get_our_cache_and_steps_as_they_lie(
    name: str, fakes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_model("Llama", {"head_dim": 64, "num_hidden_layers": 1})
    config, weights = from_hub(made.config.to_dict()), made.state_dict()
    prompts = [[(7 * n + at) % SHAPE["vocab_size"] for at in range(n)] for n in LENGTHS]
    wanted = Paged(config, weights, 16, LENGTHS).run(prompts, whole())
    for library in (libraries.Fa3Attention, libraries.VarlenAttention,
                    libraries.FlashInferAttention):  # fmt: skip
        monkeypatch.setattr(library, "why_not", lambda config, cache: "")
    # Triton, which writes the cache, does not run here outside its interpreter.
    monkeypatch.setattr(libraries.Library, "_write", write)

    def make(config: LlmConfig, weights: Mapping[str, Stored], cache: KvCache) -> Model:
        return TorchDecoder(Weights(weights, config), choose_attention(config, cache, name))

    found = Paged(config, weights, 16, LENGTHS, make).run(prompts, mixed())
    torch.testing.assert_close(torch.cat(found), torch.cat(wanted), atol=2e-4, rtol=0)


def write(self: Any, layer: int, key: Tensor, value: Tensor) -> None:
    keys, values = self.pages(layer)
    keys[self._inputs.slot_mapping], values[self._inputs.slot_mapping] = key, value
