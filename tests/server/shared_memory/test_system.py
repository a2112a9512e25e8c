"""Shared memory that clients register: bounds, keys, and views that outlive their region."""

import mmap
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trivet.backends.api import AlreadyExists, InvalidRequest, NotFound, Unsupported
from trivet.server.shared_memory.native.shm_guard import load_guard
from trivet.server.shared_memory.system import Region, SharedMemory


@pytest.fixture
def key() -> Iterator[str]:
    path = Path("/dev/shm") / f"trivet-test-{uuid.uuid4().hex}"
    path.write_bytes(bytes(range(64)))
    yield f"/{path.name}"
    path.unlink(missing_ok=True)


@pytest.fixture
def memory() -> Iterator[SharedMemory]:
    shared = SharedMemory(enabled=True)
    yield shared
    shared.close()


def path_of(key: str) -> Path:
    return Path("/dev/shm") / key.lstrip("/")


needs_guard = pytest.mark.skipif(
    load_guard() is None, reason="the guard was not compiled, so nothing is mapped"
)


@needs_guard
def test_a_region_is_read_in_place(memory: SharedMemory, key: str) -> None:
    memory.register("r", key, 8, 32)
    view = memory.read("r", 4, 4)
    assert bytes(view) == bytes([12, 13, 14, 15])
    with path_of(key).open("r+b") as file:
        file.seek(12)
        file.write(b"abcd")
    assert bytes(view) == b"abcd"


@needs_guard
def test_two_reads_share_one_mapping(memory: SharedMemory, key: str) -> None:
    memory.register("r", key, 0, 64)
    first = np.frombuffer(memory.read("r", 0, 64), np.uint8)
    second = np.frombuffer(memory.read("r", 0, 64), np.uint8)
    assert np.shares_memory(first, second)


def test_what_is_written_is_seen_by_the_client(memory: SharedMemory, key: str) -> None:
    memory.register("r", key, 8, 32)
    memory.write("r", 4, [b"ab", memoryview(b"cd")], 8)
    assert path_of(key).read_bytes()[10:18] == bytes([10, 11]) + b"abcd" + bytes([16, 17])
    assert bytes(memory.read("r", 4, 4)) == b"abcd"


def test_views_stay_valid_after_their_region_is_unregistered(
    memory: SharedMemory, key: str
) -> None:
    memory.register("r", key, 0, 64)
    view = memory.read("r", 0, 64)
    memory.unregister("r")
    assert bytes(view) == bytes(range(64))
    with pytest.raises(InvalidRequest, match="Unable to find shared memory region: 'r'"):
        memory.read("r", 0, 1)


def test_a_region_whose_object_shrank_is_refused(memory: SharedMemory, key: str) -> None:
    memory.register("r", key, 0, 64)
    os.truncate(path_of(key), 10)
    with pytest.raises(InvalidRequest, match="past the 10 bytes"):
        memory.read("r", 0, 4)
    with pytest.raises(InvalidRequest, match="past the 10 bytes"):
        memory.write("r", 0, [b"x"], 1)


@pytest.fixture(params=["guarded", "copied"])
def large(request: pytest.FixtureRequest, key: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An object of 64 pages, in each of the two ways to read it."""
    if request.param == "copied":
        monkeypatch.setattr("trivet.server.shared_memory.system.load_guard", lambda: None)
    elif load_guard() is None:
        pytest.skip("the guard was not compiled")
    path_of(key).write_bytes(b"a" * 64 * mmap.PAGESIZE)
    return path_of(key)


def test_an_object_that_shrinks_while_it_is_read_kills_nobody(
    memory: SharedMemory, key: str, large: Path
) -> None:
    """The rest reads as zeros; without a guard, as what it was."""
    memory.register("r", key, 0, 64 * mmap.PAGESIZE)
    view = memory.read("r", 0, 64 * mmap.PAGESIZE)
    os.truncate(large, 3 * mmap.PAGESIZE)
    array = np.frombuffer(view, np.uint8)
    assert (array[: 3 * mmap.PAGESIZE] == ord("a")).all()
    assert set(array[3 * mmap.PAGESIZE :].tolist()) <= {0, ord("a")}
    with pytest.raises(InvalidRequest, match="past the"):
        memory.read("r", 0, 64)


def test_objects_that_shrink_again_and_again_leave_no_mapping_behind(
    memory: SharedMemory, key: str, large: Path
) -> None:
    for _ in range(1100):  # more than there is room for at once
        large.write_bytes(b"a" * 4 * mmap.PAGESIZE)
        memory.register("r", key, 0, 4 * mmap.PAGESIZE)
        view = memory.read("r", 0, 4 * mmap.PAGESIZE)
        os.truncate(large, 0)
        assert bytes(view)[:1] in (b"\0", b"a")
        del view
        memory.unregister("r")


@needs_guard
def test_other_faults_of_the_bus_end_the_process_as_ever(tmp_path: Path) -> None:
    """A file that nobody guards."""
    code = (
        "import mmap, os, sys\n"
        "from trivet.server.shared_memory.native.shm_guard import load_guard\n"
        "assert load_guard()\n"
        f"f = open({str(tmp_path / 'f')!r}, 'w+b'); f.truncate(8192)\n"
        "m = mmap.mmap(f.fileno(), 8192); f.truncate(0); m[0]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGBUS


def test_no_descriptor_is_left_behind(memory: SharedMemory, key: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for round_number in range(5):
        memory.register("r", key, 0, 64)
        memory.read("r", 0, 64)
        memory.unregister("r" if round_number % 2 else None)
        with pytest.raises(InvalidRequest):
            memory.register("r", key, 0, 65)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("offset", "byte_size", "text"),
    [
        (33, 0, "Invalid offset for shared memory region: 'r'"),
        (-1, 4, "Invalid offset for shared memory region: 'r'"),
        (30, 3, "Invalid offset + byte size for shared memory region: 'r'"),
        (0, 2**63, "Integer overflow detected: byte_size"),
        (0, -1, "Invalid offset + byte size for shared memory region: 'r'"),
    ],
)
def test_nothing_outside_a_region_is_reached(
    memory: SharedMemory, key: str, offset: int, byte_size: int, text: str
) -> None:
    memory.register("r", key, 8, 32)
    with pytest.raises(InvalidRequest) as caught:
        memory.read("r", offset, byte_size)
    assert text in caught.value.message
    with pytest.raises(InvalidRequest) as caught:
        memory.write("r", offset, [], byte_size)
    assert "region" in caught.value.message


def test_results_larger_than_their_place_are_refused(memory: SharedMemory, key: str) -> None:
    memory.register("r", key, 0, 32)
    with pytest.raises(InvalidRequest, match="should be at least 9 bytes to hold the results"):
        memory.write("r", 0, [b"123456789"], 8)
    assert bytes(memory.read("r", 0, 4)) == bytes([0, 1, 2, 3])


@pytest.mark.parametrize(
    "bad", ["../x", "/a/b", "", "/", "///", "..", "/..", ".", "a\0b", "//x", "x" * 300]
)
def test_a_key_that_is_no_plain_name_is_refused(memory: SharedMemory, bad: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        memory.register("n", bad, 0, 4)
    assert "cannot register shared memory region 'n' - invalid shm key" in caught.value.message


def test_links_and_pipes_are_refused(memory: SharedMemory, key: str) -> None:
    link = path_of(key + "-link")
    pipe = path_of(key + "-pipe")
    link.symlink_to("/etc/hostname")
    os.mkfifo(pipe)
    try:
        for path in (link, pipe):
            with pytest.raises(InvalidRequest):
                memory.register("n", f"/{path.name}", 0, 1)
    finally:
        link.unlink()
        pipe.unlink()


@pytest.mark.parametrize(
    ("offset", "byte_size", "text"),
    [
        (0, 65, "past the 64 bytes"),
        (60, 5, "past the 64 bytes"),
        (-1, 4, "must not be negative"),
        (0, 0, "must be positive"),
        (0, -4, "must be positive"),
        (2**62, 2**62, "Integer overflow detected: byte_size"),
    ],
)
def test_a_range_outside_of_the_object_is_refused(
    memory: SharedMemory, key: str, offset: int, byte_size: int, text: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        memory.register("n", key, offset, byte_size)
    assert text in caught.value.message
    assert memory.status(None) == []


def test_a_missing_object_is_named(memory: SharedMemory) -> None:
    with pytest.raises(InvalidRequest, match="key '/trivet-nowhere': No such file"):
        memory.register("n", "/trivet-nowhere", 0, 4)


def test_a_name_is_taken_once(memory: SharedMemory, key: str) -> None:
    memory.register("r", key, 0, 8)
    with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
        memory.register("r", key, 0, 8)


def test_status_lists_what_is_registered(memory: SharedMemory, key: str) -> None:
    memory.register("a", key, 0, 8)
    memory.register("b", key, 8, 16)
    assert memory.status(None) == [Region("a", key, 0, 8), Region("b", key, 8, 16)]
    assert memory.status("b") == [Region("b", key, 8, 16)]
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'c'"):
        memory.status("c")
    memory.unregister("c")
    memory.unregister(None)
    assert memory.status(None) == []


def test_everything_but_status_is_refused_where_disabled(key: str) -> None:
    memory = SharedMemory(enabled=False)
    assert memory.status(None) == []
    for use in (
        lambda: memory.register("r", key, 0, 8),
        lambda: memory.unregister(None),
        lambda: memory.read("r", 0, 8),
        lambda: memory.write("r", 0, [b""], 8),
    ):
        with pytest.raises(Unsupported, match="--allow-client-shm=true"):
            use()
