"""S4: shared memory. Clients reach only what they have registered, by the byte; what they do to it
meanwhile costs their own request; what processes share among themselves has no name.

Names, sizes and bounds are rows V46-V48; the guard is tested in
`tests/server/shared_memory/test_system.py`.
"""

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_room import GOOD_DATA, MIB, Room, checked, json_input, read

from trivet.protos import grpc_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("unharmed")
FOLDER = Path("/dev/shm")
PAGES = 5


@pytest.fixture
def shared() -> Iterator[Path]:
    """An object of some pages, whose last one begins with a tensor."""
    path = FOLDER / f"trivet-security-{os.getpid()}"
    tensor = np.array(GOOD_DATA, np.float32).tobytes()
    path.write_bytes(bytes((PAGES - 1) * mmap.PAGESIZE) + tensor.ljust(mmap.PAGESIZE))
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def region(room: Room, shared: Path) -> Iterator[str]:
    """The last page, registered."""
    place = {"key": f"/{shared.name}", "offset": (PAGES - 1) * mmap.PAGESIZE, "byte_size": 16}
    body = json.dumps(place).encode()
    assert room.post("/v2/systemsharedmemory/region/s4/register", body).status == 200
    yield "s4"
    assert room.post("/v2/systemsharedmemory/unregister", b"").status == 200


def body(**changes: Any) -> bytes:
    place = {"shared_memory_region": "s4", "shared_memory_byte_size": 16} | changes
    return json.dumps({"inputs": [json_input(shape=[1, 4], data=..., parameters=place)]}).encode()


@pytest.mark.rows("V49")
@pytest.mark.parametrize("size", [0, mmap.PAGESIZE, (PAGES - 1) * mmap.PAGESIZE])
def test_an_object_cut_while_its_tensor_is_computed_costs_nobody(
    room: Room, shared: Path, region: str, size: int
) -> None:
    """`slow` looks at the tensor after 200 ms."""
    connection = room.http()
    connection.request("POST", "/v2/models/slow/infer", body())
    # Answered by the same loop, so the request before it has been handed on.
    room.assert_unharmed()
    os.truncate(shared, size)
    assert checked(read(connection)).status in (200, 400)
    connection.close()
    answer = room.post("/v2/models/slow/infer", body())
    assert answer.status == 400
    assert "is past the" in answer.error


@pytest.mark.rows("V49")
def test_an_object_cut_a_thousand_times_under_load_costs_nobody(
    room: Room, shared: Path, region: str
) -> None:
    connection = room.http()
    whole = shared.read_bytes()
    statuses = set()
    for number in range(300):
        connection.request("POST", "/v2/models/ident_fp32/infer", flat_body())
        if number % 3 == 0:
            os.truncate(shared, 0)
        statuses.add(read(connection).status)
        shared.write_bytes(whole)
    connection.close()
    assert statuses <= {200, 400}
    assert 200 in statuses


def flat_body() -> bytes:
    place = {"shared_memory_region": "s4", "shared_memory_byte_size": 16}
    return json.dumps({"inputs": [json_input(shape=[4], data=..., parameters=place)]}).encode()


@pytest.mark.parametrize("offset", [-1, 17, 2**62, 2**63 - 1])
@pytest.mark.parametrize("size", [-1, 17, 2**62])
def test_no_byte_outside_of_the_region_is_read(
    room: Room, region: str, offset: int, size: int
) -> None:
    changes = {"shared_memory_offset": offset, "shared_memory_byte_size": size}
    assert room.post("/v2/models/slow/infer", body(**changes)).status == 400


def test_no_byte_outside_of_the_region_is_written(room: Room, shared: Path, region: str) -> None:
    before = shared.read_bytes()
    wish = {"shared_memory_region": "s4", "shared_memory_byte_size": 8}
    document = {
        "inputs": [json_input(shape=[4], data=GOOD_DATA)],
        "outputs": [{"name": "OUTPUT0", "parameters": wish}],
    }
    answer = room.post("/v2/models/ident_fp32/infer", json.dumps(document).encode())
    assert answer.status == 400
    assert "should be at least 16 bytes" in answer.error
    assert shared.read_bytes() == before


def test_what_processes_share_has_no_name(room: Room) -> None:
    """Tensors of Python models cross in memory that nobody else can open."""
    before = set(FOLDER.iterdir())
    command = json_input("COMMAND", datatype="BYTES", shape=[1], data=["x" * MIB])
    answer = room.post("/v2/models/crash/infer", json.dumps({"inputs": [command]}).encode())
    assert answer.status == 200
    assert set(FOLDER.iterdir()) - before == set()


def test_errors_about_large_requests_name_no_memory(room: Room) -> None:
    """Triton's oversized request told the key of its own segment."""
    message = pb.ModelInferRequest(model_name="crash")
    message.inputs.add(name="COMMAND", datatype="BYTES", shape=[2**31])
    message.raw_input_contents.append(b"\0" * 1024)
    _, text = room.refusal("ModelInfer", message.SerializeToString())
    assert "shm" not in text
