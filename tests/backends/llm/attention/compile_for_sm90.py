"""A program: compiles each kernel as `TritonAttention` launches it, for an H100 and without one,
and writes what ptxas says of it as JSON, one kernel a line."""

import json
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from trivet.backends.llm.attention import triton_paged
from trivet.backends.llm.attention.base import StepInputs
from trivet.backends.llm.attention.kv_cache import KvCache
from trivet.backends.llm.families.llama import LlamaShape
from trivet.backends.llm.matrices import packed_product
from trivet.backends.llm.matrices.codes import E4M3, Code
from trivet.backends.llm.models import fused_llama

PTXAS = Path(nvidia.__file__).parent / "bin" / "ptxas"
SHAPES = {
    "llama 8b": (32, 8, 128, 0, torch.bfloat16),
    "llama 8b, cache of 8 bits": (32, 8, 128, 0, torch.float8_e4m3fn),
    "smollm2": (9, 3, 64, 0, torch.bfloat16),
    "mistral, window": (32, 8, 128, 4096, torch.bfloat16),
    "heads of 256": (16, 8, 256, 0, torch.bfloat16),
    "float32": (9, 3, 64, 0, torch.float32),
}


class Offline:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def main() -> None:
    driver.set_active(Offline())
    run, compiled = triton.JITFunction.run, []

    def compile_only(self: Any, *args: Any, **options: Any) -> Any:
        compiled.append(run(self, *args, **options | {"warmup": True}))

    with (
        mock.patch.object(triton.JITFunction, "run", compile_only),
        mock.patch.object(triton_paged, "_num_processors", return_value=132),
        mock.patch.object(packed_product, "_num_processors", return_value=132),
    ):
        for name, given in SHAPES.items():
            for num_sequences in (1, 64) if name == "llama 8b" else (64,):
                compiled.clear()
                launch(num_sequences, *given)
                for kernel in compiled:
                    print(json.dumps({"model": name} | report(kernel)))
        for name, launch_some in (
            ("between products", launch_between_products),
            ("packed", launch_packed_products),
        ):
            compiled.clear()
            launch_some()
            for kernel in compiled:
                print(json.dumps({"model": name} | report(kernel)))


def launch(
    num_sequences: int, num_heads: int, num_kv: int, size: int, window: int, dtype: torch.dtype
) -> None:
    """A step of chunks and decodes."""
    config = LlamaShape(
        architecture="llama", vocabulary_size=8, hidden_size=8, intermediate_size=8, num_layers=1,
        num_heads=num_heads, num_kv_heads=num_kv, head_dim=size, max_positions=1,
        rms_norm_eps=1e-5, rope_theta=1e4, sliding_window=window,
    ).config()  # fmt: skip
    cache = KvCache(config, 2, 16, dtype)
    attention = triton_paged.TritonAttention(cache, config.attentions)
    num_tokens = num_sequences + 100
    attention.begin(StepInputs(
        token_ids=torch.zeros(num_tokens, dtype=torch.int64),
        positions=torch.zeros(num_tokens, dtype=torch.int64),
        slot_mapping=torch.zeros(num_tokens, dtype=torch.int64),
        query_starts=torch.zeros(num_sequences + 1, dtype=torch.int32),
        sequence_lengths=torch.zeros(num_sequences, dtype=torch.int32),
        block_tables=torch.zeros(num_sequences, 64, dtype=torch.int32),
        sample_rows=torch.zeros(1, dtype=torch.int64),
    ))  # fmt: skip
    computes = torch.bfloat16 if dtype.itemsize == 1 else dtype
    fused = torch.empty(num_tokens, num_heads + 2 * num_kv, size, dtype=computes)
    attention.attend(0, *torch.split(fused, [num_heads, num_kv, num_kv], dim=1))


def launch_between_products() -> None:
    """A layer of Llama 3 8B and one of Qwen 3 8B, in 16 and in 8 bits."""
    rows = torch.empty(64, 4096, dtype=torch.bfloat16)
    gate_up = torch.empty(64, 2 * 14336, dtype=torch.bfloat16)
    norm = torch.empty(4096, dtype=torch.bfloat16)
    longs, angles = torch.zeros(64, dtype=torch.int64), torch.zeros(1, 64)
    for is_8bit in (False, True):
        reader: Any = SimpleNamespace(is_8bit=is_8bit)
        for adds in (False, True):
            fused_llama.normed(rows, rows, norm, 1e-5, reader, adds=adds)
        fused_llama.silu_product(gate_up, reader)
        pages = torch.empty(32, 8, 128, dtype=torch.float8_e4m3fn if is_8bit else torch.bfloat16)
        for norms in (None, torch.empty(128, dtype=torch.bfloat16)):
            fused_llama.rotate(
                torch.empty(64, 48 * 128, dtype=torch.bfloat16), (angles, angles), longs, longs,
                (pages, pages), (1.0, 1.0), (norms, norms), (32, 8, 128), 1e-5,
            )  # fmt: skip
    fused_llama.quantised(rows)


PACKED = (
    (Code(4, 8), 128, False), (Code(4), 32, True), (Code(4, table=(0.5,) * 16), 64, False),
    (Code(8, 128), 4096, False), (E4M3, 128, False),
)  # fmt: skip
"""As GPTQ's and AWQ's, as `quantization` makes them, as bitsandbytes' and as blocks of e4m3 are."""


def launch_packed_products() -> None:
    """A matrix of Llama 3.1 8B, of few rows, of many, and expanded."""
    for code, group, has_minimums in PACKED:
        scales = torch.ones(4096, 4096 // group, dtype=torch.bfloat16)
        codes = torch.zeros(4096, 4096 * code.bits // 8, dtype=torch.uint8)
        minimums = scales if has_minimums else None
        bias = torch.empty(4096, dtype=torch.bfloat16)
        product = packed_product.PackedProduct(codes, scales, minimums, code, bias=bias)
        for num_rows in (1, 32, 256):
            product(torch.empty(num_rows, 4096, dtype=torch.bfloat16))
        product.expanded(torch.bfloat16)


def report(kernel: Any) -> dict[str, Any]:
    """Registers and spills."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"])
        arch = re.search(r"\.target (sm_\w+)", kernel.asm["ptx"])
        assert arch
        said = subprocess.run(
            [PTXAS, "-v", f"-arch={arch[1]}", source, "-o", f"{folder}/kernel.cubin"],
            capture_output=True, text=True, check=True,
        ).stderr  # fmt: skip
    registers = re.search(r"Used (\d+) registers", said)
    assert registers, said
    return {
        "kernel": kernel.metadata.name,
        "registers": int(registers[1]),
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", said))),
        "shared_bytes": kernel.metadata.shared,
        "has_wgmma": "wgmma" in kernel.asm["ptx"],
        "has_async_copies": "cp.async" in kernel.asm["ptx"],
    }


if __name__ == "__main__":
    main()
