"""Model files written to hurt: what they claim, and their bytes."""

import json
from typing import Any

UINT8, UINT32, TEXT, ARRAY, UINT64 = 0, 4, 8, 9, 10
TWO_63, TWO_64 = 2**63, 2**64 - 1


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def text(value: bytes) -> bytes:
    return number(len(value)) + value


def pair(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + number(kind, 4) + value


def tensor(name: bytes = b"a", *dims: int, kind: int = 0, start: int = 0) -> bytes:
    shape = b"".join(map(number, dims))
    return text(name) + number(len(dims), 4) + shape + number(kind, 4) + number(start)


def header(num_tensors: int = 0, num_pairs: int = 0, rest: bytes = b"") -> bytes:
    return b"GGUF" + number(3, 4) + number(num_tensors) + number(num_pairs) + rest


def array(kind: int, count: int, rest: bytes = b"") -> bytes:
    return header(0, 1, pair(b"a", ARRAY, number(kind, 4) + number(count) + rest))


GGUF: dict[str, bytes] = {
    "10^9 pairs": header(0, 10**9),
    "2^64 pairs": header(0, TWO_64),
    "10^9 tensors": header(10**9),
    "huge dims": header(1, 0, tensor(b"a", 2**40, 2**40)),
    "dims that overflow to little": header(1, 0, tensor(b"a", 2**32, 2**32)),
    "negative dim": header(1, 0, tensor(b"a", TWO_64)),
    "dim 0": header(1, 0, tensor(b"a", 0)),
    "10^9 dims": header(1, 0, text(b"a") + number(10**9, 4)),
    "an unknown type": header(1, 0, tensor(b"a", 32, kind=99)),
    "no whole blocks": header(1, 0, tensor(b"a", 33, kind=2)),
    "one number in blocks": header(1, 0, tensor(b"a", kind=2) + bytes(999)),
    "a start past the end": header(1, 0, tensor(b"a", 32, start=2**40)),
    "a start that overflows": header(1, 0, tensor(b"a", 32, start=TWO_64 - 31)),
    "a start between": header(1, 0, tensor(b"a", 32, start=5) + bytes(999)),
    "two on one place": header(2, 0, tensor(b"a", 32) + tensor(b"b", 32) + bytes(999)),
    "a tensor twice": header(2, 0, tensor(b"a", 8) + tensor(b"a", 8, start=32) + bytes(999)),
    "alignment 0": header(0, 1, pair(b"general.alignment", UINT32, number(0, 4))),
    "alignment 3": header(0, 1, pair(b"general.alignment", UINT32, number(3, 4))),
    "alignment of 64 bits": header(0, 1, pair(b"general.alignment", UINT64, number(0))),
    "an array of arrays": array(ARRAY, 1, number(ARRAY, 4) * 1000),
    "a vocabulary over 2^31": array(TEXT, 2**31 + 5),
    "an array of 2^63": array(UINT8, TWO_63),
    "an array of 2^64 numbers": array(UINT64, TWO_64),
    "10^12 small elements": array(UINT8, 10**12),
    "texts that are missing": array(TEXT, 1000, bytes(64)),
    "a text of 2^63": array(TEXT, 1, number(TWO_63)),
    "a name of 2^40": header(0, 1, number(2**40)),
    "a name twice": header(0, 2, pair(b"a", UINT8, b"1") * 2),
    "a value of an unknown type": header(0, 1, pair(b"a", 99, b"1")),
    "version 1": b"GGUF" + number(1, 4) + bytes(100),
    "the other byte order": b"GGUF" + (3).to_bytes(4, "big") + bytes(100),
}


def packed(document: Any, data: bytes = bytes(64), size: int | None = None) -> bytes:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    return number(len(head) if size is None else size) + head + data


def spec(start: int, end: int, *shape: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


SAFETENSORS: dict[str, bytes] = {
    "a header of 2^63": packed({}, size=TWO_63),
    "a header of 2^40": packed({}, size=2**40),
    "a header past the end": packed({}, b"", size=500),
    "overlapping": packed({"a": spec(0, 32, 8), "b": spec(16, 48, 8)}),
    "a hole": packed({"a": spec(0, 16, 4), "b": spec(32, 64, 8)}),
    "past the end": packed({"a": spec(0, 4096, 1024)}),
    "backwards": packed({"a": spec(32, 0, 8)}),
    "a shape that overflows": packed({"a": spec(0, 64, 2**33, 2**33)}),
    "another size than its shape": packed({"a": spec(0, 64, 2)}),
    "a name twice": packed(
        b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},'
        b'"a":{"dtype":"F32","shape":[8],"data_offsets":[32,64]}}'
    ),
    "no JSON": packed(b"{nothing"),
    "deep JSON": packed(b'{"a":' + b"[" * 100_000),
    "nothing": b"",
    "a pickle": b"\x80\x04cposix\nsystem\n(V/bin/false\ntR.",
}


CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 380, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128, "rope_theta": 10_000.0, "eos_token_id": 1,
    "hidden_act": "silu", "tie_word_embeddings": False,
}  # fmt: skip
"""Of a Hugging Face folder whose weights are these."""
