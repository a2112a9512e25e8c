"""Chunk sizes are known when their lines have come, however the bytes are cut."""

from typing import Any

import pytest

from trivet.server.http.chunks import ChunkSizes

BODY = b"5\r\nhello\r\n0a;name=value\r\n0123456789\r\n1\r\n\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n"


@pytest.mark.parametrize("step", range(1, len(BODY) + 1))
def test_every_cut_gives_the_same_sizes(step: int) -> None:
    sizes = ChunkSizes()
    pieces = [BODY[at : at + step] for at in range(0, len(BODY), step)]
    assert [size for piece in pieces for size in sizes.feed(piece)] == [5, 10, 1, 0]


def test_a_size_is_known_before_its_bytes() -> None:
    assert list(ChunkSizes().feed(b"FFFFFFFFFFFFFFFF\r\n")) == [2**64 - 1]


@pytest.mark.parametrize("line", [b"\r\n", b"xyz\r\n", b";\r\n", b"-\r\n"])
def test_what_is_no_size_is_the_parser_s_matter(line: bytes) -> None:
    assert list(ChunkSizes().feed(line)) == [0]


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    sizes = ChunkSizes()
    for _ in range(10_000):
        assert not list(sizes.feed(b"0" * 100))
    assert len(sizes._line) < 10_000


@pytest.mark.parametrize("step", range(1, len(BODY) + 1))
def test_what_lies_behind_a_body_is_known_however_it_is_cut(step: int) -> None:
    sizes = ChunkSizes()
    whole = BODY.replace(b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n")
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    assert b"".join(sizes.behind(piece) for piece in pieces) == b"GET / HTTP/1.1\r\n"


class Counted(bytes):
    """Counts the bytes that are cut out of it."""

    num_cut = 0

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return part if isinstance(part, int) else self._count(part)

    def partition(self, separator: Any) -> Any:
        return tuple(map(self._count, super().partition(separator)))

    def _count(self, part: bytes) -> "Counted":
        Counted.num_cut += len(part)
        return Counted(part)


def test_many_small_chunks_cost_no_more_than_their_bytes() -> None:
    """Not each of them what follows it: 64 Ki chunks would be gigabytes of copies."""
    body = Counted(b"1\r\n \r\n" * 1000 + b"0\r\n\r\n")
    assert sum(ChunkSizes().feed(body)) == 1000
    assert Counted.num_cut <= len(body)
