"""S15: isolation. In a batch, a cache or a buffer, nobody gets what is another's.

Keys of the response cache are hashes of all that may change an answer
(`tests/server/cache/test_key.py`), those of prefixes compare the tokens themselves
(`tests/backends/llm/scheduling/test_prefix.py`); tenants are in
`tests/server/auth/test_tenants.py`.
"""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fault_room import Room, read
from grpc import aio

from trivet.backends.llm.scheduling.prefix import BlockKey, PrefixIndex
from trivet.protos import grpc_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("unharmed")
ROWS = 8


def taint(client: int, number: int, rows: int) -> np.ndarray:
    """Rows that nobody else has."""
    base = (client * 10_000 + number) * ROWS
    return (np.arange(rows * 16, dtype=np.float32).reshape(rows, 16) / 16) + base


async def ask(channel: aio.Channel, client: int, count: int) -> int:
    """How many rows came back that are not exactly those that were sent."""
    stub = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    wrong = 0
    for number in range(count):
        rows = 1 + (client + number) % 3
        first, second = taint(client, number, rows), -taint(client, number, rows)
        message = pb.ModelInferRequest(model_name="simple", id=f"{client}-{number}")
        for name, values in (("INPUT0", first), ("INPUT1", second)):
            message.inputs.add(name=name, datatype="FP32", shape=values.shape)
            message.raw_input_contents.append(values.tobytes())
        answer = pb.ModelInferResponse.FromString(await stub(message.SerializeToString()))
        given = [np.frombuffer(raw, np.float32) for raw in answer.raw_output_contents]
        wrong += answer.id != f"{client}-{number}"
        wrong += not np.array_equal(given[0], first.reshape(-1))
        wrong += not np.array_equal(given[1], second.reshape(-1))
    return wrong


async def test_no_row_of_a_batch_goes_to_another_client(room: Room) -> None:
    """Batches of up to 8 rows out of requests of 1 to 3, from 32 clients."""
    async with aio.insecure_channel(room.server.grpc) as channel:
        wrong = await asyncio.gather(*(ask(channel, client, 60) for client in range(32)))
    assert sum(wrong) == 0


@pytest.mark.slow
async def test_a_million_rows_and_none_of_another_client(room: Room) -> None:
    async with aio.insecure_channel(room.server.grpc) as channel:
        wrong = await asyncio.gather(*(ask(channel, client, 9000) for client in range(64)))
    assert sum(wrong) == 0


def test_texts_of_clients_do_not_mix_over_http(room: Room) -> None:
    def talk(client: int) -> None:
        connection = room.http()
        for number in range(40):
            text = [f"{client}/{number}/{index}" * (1 + index) for index in range(1 + number % 5)]
            given = {"name": "INPUT0", "shape": [len(text)], "datatype": "BYTES", "data": text}
            body = json.dumps({"id": f"{client}", "inputs": [given]})
            connection.request("POST", "/v2/models/ident_str/infer", body)
            document = json.loads(read(connection).body)
            assert document["id"] == f"{client}"
            assert document["outputs"][0]["data"] == text
        connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(8)))


def test_prefixes_of_other_salts_are_not_found_though_the_tokens_are_the_same() -> None:
    index = PrefixIndex(4)
    tokens = list(range(16))
    keys: dict[str, list[BlockKey]] = {}
    for salt in ("", "a", "b", "a b"):
        keys[salt] = []
        index.extend(keys[salt], tokens, 4, salt)
    for block, key in enumerate(keys["a"]):
        index.add(key, block)
    assert index.find(keys["a"]) == [0, 1, 2, 3]
    assert [index.find(keys[salt]) for salt in ("", "b", "a b")] == [[], [], []]


def test_prefix_keys_cannot_be_prepared_elsewhere() -> None:
    """Each engine has a seed of its own."""
    keys = []
    for _ in range(2):
        found: list[object] = []
        PrefixIndex(4).extend(found, list(range(4)), 1, "")  # type: ignore[arg-type]
        keys.append(found[0])
    assert keys[0] != keys[1]
