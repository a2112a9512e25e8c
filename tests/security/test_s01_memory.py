"""S1: bytes become memory. One request costs at most 20 times its bytes and a constant, and while
it is refused others are answered; sizes are computed before anything is allocated.

The decoders are fuzzed in `tests/fuzz/`; the single cases are rows V26-V38, G06 and R10-R12.
"""

from collections.abc import Callable

import pytest
from fault_room import MIB, Room

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.grpc.wire import varint

pytestmark = pytest.mark.usefixtures("unharmed")
SIZE = 4 * MIB
FACTOR = 20
CONSTANT_BYTES = 64 * MIB
"""Pools, threads and pages that are there from then on."""
LATE_S = 4.0
"""On a machine that is many times slower; unbounded, each of these took from two seconds to a
minute."""
TENSOR = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"%s","data":['
INFER = "/v2/models/ident_fp32/infer"
STRINGS = "/v2/models/ident_str/infer"
CHAT, PROMPTS = "/v1/chat/completions", "/v1/completions"
SAY = b'{"model":"x","messages":[{"role":"user","content":"a"}],'

Made = Callable[[], bytes]


def many(piece: bytes, head: bytes, tail: bytes) -> Made:
    """Makes the piece, as often as it fits, between the two."""
    pieces = (SIZE - len(head) - len(tail)) // len(piece)
    return lambda: head + (piece * pieces).rstrip(b",") + tail


def keys(form: bytes, head: bytes, tail: bytes) -> Made:
    """The same of pieces that are all different."""
    pieces = SIZE // (len(form) + 4)
    return lambda: head + b",".join(form % number for number in range(pieces)) + tail


HTTP = {
    "integers": (INFER, many(b"1,", TENSOR % b"FP32", b"]}]}")),
    "numbers": (INFER, many(b"1.5,", TENSOR % b"FP32", b"]}]}")),
    "arrays": (INFER, many(b"[],", TENSOR % b"FP32", b"]}]}")),
    "objects": (INFER, many(b"{},", TENSOR % b"FP32", b"]}]}")),
    "arrays of one": (INFER, many(b"[1],", TENSOR % b"FP32", b"]}]}")),
    "texts": (STRINGS, many(b'"ab",', TENSOR % b"BYTES", b"]}]}")),
    "inputs": (INFER, many(b"{},", b'{"inputs":[', b"]}")),
    "outputs": (INFER, many(b"{},", b'{"outputs":[', b"]}")),
    "keys": (INFER, keys(b'"%x":0', b"{", b"}")),
    "parameters": (INFER, keys(b'"%x":0', b'{"parameters":{', b"}}")),
    "generate": ("/v2/models/decoupled/generate", many(b"{},", b'{"IN":[', b"]}")),
    "index": ("/v2/repository/index", many(b"{},", b'{"ready":[', b"]}")),
    "load": ("/v2/repository/models/good/load", keys(b'"%x":0', b'{"parameters":{', b"}}")),
    "messages": (CHAT, many(b"{},", b'{"model":"x","messages":[', b"]}")),
    "messages that are texts": (CHAT, many(b'"",', b'{"model":"x","messages":[', b"]}")),
    "parts": (CHAT, many(b"[],", b'{"model":"x","messages":[{"role":"user","content":[', b"]}]}")),
    "tools": (CHAT, many(b"{},", SAY + b'"tools":[', b"]}")),
    "tools that are numbers": (CHAT, many(b"1,", SAY + b'"tools":[', b"]}")),
    "stops": (CHAT, many(b"1,", SAY + b'"stop":[', b"]}")),
    "template arguments": (CHAT, keys(b'"%x":0', SAY + b'"chat_template_kwargs":{', b"}}")),
    "biases": (CHAT, keys(b'"%x":0', SAY + b'"logit_bias":{', b"}}")),
    "biases that are none": (CHAT, keys(b'"%x":""', SAY + b'"logit_bias":{', b"}}")),
    "a schema": (CHAT, keys(b'"%x":0', SAY + b'"structured_outputs":{"json":{', b"}}}")),
    "token ids": (PROMPTS, many(b"1,", b'{"model":"x","prompt":[', b"]}")),
    "prompts": (PROMPTS, many(b'"",', b'{"model":"x","prompt":[', b"]}")),
    "prompts of ids": (PROMPTS, many(b"[],", b'{"model":"x","prompt":[', b"]}")),
    "an unknown field": (PROMPTS, many(b"[],", b'{"model":"x","prompt":"a","colour":[', b"]}")),
    "embeddings": ("/v1/embeddings", many(b"[],", b'{"model":"x","input":[', b"]}")),
    "texts to embed": ("/v1/embeddings", many(b'"",', b'{"model":"x","input":[', b"]}")),
    "TGI": ("/generate", many(b"[],", b'{"inputs":"x","parameters":{"stop":[', b"]}}")),
    "tokenize": ("/tokenize", many(b"{},", b'{"model":"x","messages":[', b"]}")),
    "detokenize": ("/detokenize", many(b'"",', b'{"model":"x","tokens":[', b"]}")),
}  # fmt: skip


@pytest.mark.alone
@pytest.mark.parametrize("what", HTTP)
def test_a_body_costs_little_more_memory_than_its_bytes(room: Room, what: str) -> None:
    path, make = HTTP[what]
    body = make()
    with room.memory_bound(FACTOR * len(body) + CONSTANT_BYTES), room.lateness_bound(LATE_S):
        answer = room.post(path, body, {"Content-Type": "application/json"})
    assert 400 <= answer.status < 500
    assert len(answer.body) < 4096


def field(tag: int, payload: bytes = b"") -> bytes:
    return bytes([tag << 3 | 2]) + varint(len(payload)) + payload


def tensor(datatype: str, contents: bytes = b"", shape: bytes = b"") -> bytes:
    named = pb.ModelInferRequest.InferInputTensor(name="INPUT0", datatype=datatype, shape=[SIZE])
    return field(5, named.SerializeToString() + field(3, shape) + field(5, contents))


HEAD = pb.ModelInferRequest(model_name="ident_fp32").SerializeToString()
GRPC: dict[str, Made] = {
    "inputs": lambda: HEAD + field(5) * (SIZE // 2),
    "outputs": lambda: HEAD + field(6) * (SIZE // 2),
    "raw contents": lambda: HEAD + field(7) * (SIZE // 2),
    "parameters": lambda: HEAD + field(4) * (SIZE // 2),
    "small integers": lambda: HEAD + tensor("INT64", field(3, b"\1" * SIZE)),
    "texts": lambda: HEAD + tensor("BYTES", field(8) * (SIZE // 2)),
    "dimensions": lambda: HEAD + tensor("INT64", shape=b"\1" * SIZE),
    "more than the limit": lambda: HEAD + tensor("INT64", field(3, b"\1" * (2 * SIZE))),
    "parameters of an input": lambda: (
        HEAD + field(5, b"".join(field(4, field(1, b"%x" % number)) for number in range(SIZE // 9)))
    ),
}


@pytest.mark.alone
@pytest.mark.parametrize("what", GRPC)
def test_a_message_costs_little_more_memory_than_its_bytes(room: Room, what: str) -> None:
    message = GRPC[what]()
    bound = FACTOR * len(message) + CONSTANT_BYTES
    with room.memory_bound(bound), room.lateness_bound(LATE_S):
        code, _ = room.refusal("ModelInfer", message)
    assert code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")


@pytest.mark.alone
@pytest.mark.parametrize("method", ["RepositoryModelLoad", "TraceSetting", "RepositoryModelUnload"])
def test_other_calls_cost_little_more_memory_than_their_bytes(room: Room, method: str) -> None:
    message = field(1) * (SIZE // 4) + field(3) * (SIZE // 4)
    with room.memory_bound(FACTOR * len(message) + CONSTANT_BYTES), room.lateness_bound(LATE_S):
        room.refusal(method, message)
