"""What the log says while files come."""

import logging

import pytest

from trivet.server.remote.progress import Lines, readable, shown


def test_sizes_are_written_as_people_do() -> None:
    assert [readable(size) for size in (0, 1023, 1024, 5 << 20, 3 << 30, 2000 << 30)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "2000.0 GiB",
    ]


def test_lines_come_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 1.0, 9.0, 10.5, 11.0, 21.0])
    with caplog.at_level(logging.INFO):
        lines = Lines("s3://bucket", 100, lambda: next(clock))
        for _ in range(5):
            lines.advance(10)
    assert [record.getMessage() for record in caplog.records] == [
        "s3://bucket: 30 bytes of 100 bytes",
        "s3://bucket: 50 bytes of 100 bytes",
    ]


def test_beginning_and_end_have_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), shown("s3://bucket", 2, 5, bar=False) as advance:
        advance(5)
    assert "fetching 2 file(s), 5 bytes" in caplog.text
    assert "fetched 5 bytes" in caplog.text
