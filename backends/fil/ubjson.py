"""Whether a UBJSON document is whole: XGBoost's reader goes on behind the end of one that was cut
off, into whatever memory lies there. Format: https://ubjson.org, draft 12."""

import struct

_SIZES = {b"Z": 0, b"N": 0, b"T": 0, b"F": 0, b"i": 1, b"U": 1, b"C": 1}
_SIZES |= {b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8}
"""Bytes of a value behind its marker."""
_INTEGERS = {b"i": ">b", b"U": ">B", b"I": ">h", b"l": ">i", b"L": ">q"}
_DEPTH = 64
"""Deeper than any model is nested."""


def check_whole(content: bytes) -> None:
    """Raises ValueError that says at which byte it is not."""
    end = _value(content, 0, 0)
    if end != len(content):
        raise ValueError(f"{len(content) - end} bytes follow its end at byte {end}")


def _value(content: bytes, at: int, depth: int) -> int:
    """Where the value whose marker is at `at` ends."""
    marker = content[at : at + 1]
    return _rest(content, marker, at + 1, depth)


def _rest(content: bytes, marker: bytes, at: int, depth: int) -> int:
    """Where a value of a marker ends that begins at `at`."""
    if marker in _SIZES:
        return _within(content, at, _SIZES[marker])
    if marker in (b"S", b"H"):
        return _text(content, at)
    if marker not in (b"[", b"{"):
        what = f"the unknown marker {marker!r}" if marker else "the end of the file"
        raise ValueError(f"at byte {at} there is {what}")
    if depth == _DEPTH:
        raise ValueError(f"at byte {at} it is nested more than {_DEPTH} deep")
    return _container(content, at, depth + 1, has_keys=marker == b"{")


def _container(content: bytes, at: int, depth: int, *, has_keys: bool) -> int:
    kind = b""
    if content[at : at + 1] == b"$":
        kind, at = content[at + 1 : at + 2], at + 2
        if content[at : at + 1] != b"#":
            raise ValueError(f"at byte {at} the number of values of one type is missing")
    if content[at : at + 1] == b"#":
        count, at = _integer(content, at + 1)
        if kind in _SIZES and not has_keys:
            return _within(content, at, count * _SIZES[kind])
        for _ in range(count):
            at = _text(content, at) if has_keys else at
            at = _rest(content, kind, at, depth) if kind else _value(content, at, depth)
        return at
    close = b"}" if has_keys else b"]"
    while content[at : at + 1] != close:
        at = _text(content, at) if has_keys else at
        at = _value(content, at, depth)
    return at + 1


def _text(content: bytes, at: int) -> int:
    length, at = _integer(content, at)
    return _within(content, at, length)


def _integer(content: bytes, at: int) -> tuple[int, int]:
    """A length and where it ends."""
    marker = content[at : at + 1]
    if marker not in _INTEGERS:
        raise ValueError(f"at byte {at} a length is missing")
    end = _within(content, at + 1, _SIZES[marker])
    (found,) = struct.unpack(_INTEGERS[marker], content[at + 1 : end])
    if found < 0:
        raise ValueError(f"at byte {at} a length is {found}")
    return found, end


def _within(content: bytes, at: int, size: int) -> int:
    if at + size > len(content):
        raise ValueError(f"it ends at byte {len(content)}, in a value of {size} bytes at byte {at}")
    return at + size
