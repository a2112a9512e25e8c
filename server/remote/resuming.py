"""Going on in the middle of a file with servers that know no ranges: they begin anew."""

from collections.abc import Iterable, Iterator


def behind(chunks: Iterable[bytes], num_bytes: int) -> Iterator[bytes]:
    """What comes behind the first bytes."""
    for chunk in chunks:
        kept = chunk[num_bytes:]
        num_bytes -= len(chunk) - len(kept)
        if kept:
            yield kept
