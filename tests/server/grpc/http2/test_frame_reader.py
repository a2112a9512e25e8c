"""Frames come in any pieces: what can be taken is taken, and nothing else is called work."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trivet.server.grpc.http2.frame_reader import (
    MAX_DATA_BYTES,
    MAX_OTHER_BYTES,
    RECEIVE_BYTES,
    FrameReader,
)
from trivet.server.grpc.http2.frames import (
    HEAD_BYTES,
    PADDED,
    PREFACE,
    ConnectionFault,
    ErrorCode,
    Kind,
    frame_head,
)

MAX_GOING_ON = 20
"""Far more than 256 frames a batch leave of what these tests send."""


class Taken:
    """Counts payload bytes by how they were handed over."""

    def __init__(self) -> None:
        self.framed: list[tuple[int, int]] = []
        self.streamed = 0
        self.ends = 0

    def on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.framed.append((kind, len(payload)))

    def on_data_head(self, stream_id: int, size: int) -> None:
        pass

    def on_data(self, stream_id: int, data: bytes) -> None:
        self.streamed += len(data)

    def on_data_end(self, stream_id: int, *, is_last: bool) -> None:
        self.ends += 1

    def place(self, stream_id: int) -> memoryview | None:
        return None

    def on_placed(self, stream_id: int, size: int) -> None:
        raise AssertionError("nothing has a place")


def feed(reader: FrameReader, data: bytes) -> None:
    """As the connection does it: reads, and goes on while there is said to be work."""
    for start in range(0, len(data), RECEIVE_BYTES):
        part = data[start : start + RECEIVE_BYTES]
        reader.get_buffer()[: len(part)] = part
        reader.on_received(len(part))
        for _ in range(MAX_GOING_ON):
            if not reader.has_backlog:
                break
            reader.go_on()
        else:
            raise AssertionError("it says that it can go on and takes nothing")


def opened() -> tuple[FrameReader, Taken]:
    taken = Taken()
    reader = FrameReader(lambda: None, taken.on_frame, taken)
    feed(reader, PREFACE)
    return reader, taken


kinds = st.sampled_from([(Kind.DATA, PADDED), (Kind.DATA, 0), (Kind.HEADERS, 0), (Kind.PING, 0)])
sizes = st.one_of(
    st.integers(0, 300),
    st.sampled_from([MAX_OTHER_BYTES - 1, MAX_OTHER_BYTES, MAX_OTHER_BYTES + 1, 100_000]),
    st.sampled_from([MAX_DATA_BYTES - 1, MAX_DATA_BYTES, MAX_DATA_BYTES + 1, 2**24 - 1]),
)


@example((Kind.DATA, PADDED), 100_000, HEAD_BYTES)
@given(kinds, sizes, st.integers(0, 2**24))
def test_a_frame_that_is_cut_anywhere_is_taken_once_or_refused_by_its_head(
    kind_and_flags: tuple[Kind, int], size: int, cut: int
) -> None:
    kind, flags = kind_and_flags
    reader, taken = opened()
    is_legal = size <= (MAX_DATA_BYTES if kind == Kind.DATA else MAX_OTHER_BYTES)
    frame = frame_head(size, kind, flags, 1) + (bytes(size) if is_legal else b"")
    cut = min(cut, len(frame))
    if not is_legal:
        with pytest.raises(ConnectionFault) as told:
            feed(reader, frame)
        assert told.value.code is ErrorCode.FRAME_SIZE_ERROR
        return
    feed(reader, frame[:cut])
    is_whole = cut == len(frame)
    assert len(taken.framed) + taken.ends == is_whole
    feed(reader, frame[cut:])
    if taken.framed:
        assert (taken.framed, taken.streamed, taken.ends) == ([(kind, size)], 0, 0)
    else:  # only DATA that is not whole yet goes on as it comes
        assert (kind, flags) == (Kind.DATA, 0)
        assert (taken.streamed, taken.ends) == (size, 1)
    assert not reader.has_backlog


def test_many_frames_in_one_read_are_all_taken() -> None:
    reader, taken = opened()
    ping = frame_head(8, Kind.PING, 0, 0) + bytes(8)
    feed(reader, ping * 3000)
    assert len(taken.framed) == 3000
