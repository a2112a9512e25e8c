"""What a file that is no model looks like, or keeps from being read: a failed load names it."""

from pathlib import Path

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_HTML_STARTS = (b"<!doctype html", b"<html", b"<?xml")


def check_readable(path: Path) -> None:
    """Raises the system's own OSError, for libraries that call whatever keeps them from opening a
    file a missing file (safetensors does)."""
    with path.open("rb") as file:
        file.read(1)


def describe_content(path: Path) -> str:
    """What the file's first bytes look like, as the end of a sentence: 'a Git LFS pointer, ...'."""
    with path.open("rb") as file:
        head = file.read(512)
    return describe_head(head, path.stat().st_size)


def describe_head(head: bytes, size_bytes: int | None = None) -> str:
    """The same of the first bytes alone."""
    if not head:
        return "an empty file"
    if head.startswith(_LFS_POINTER):
        return "a Git LFS pointer, not the model itself; run `git lfs pull`"
    if head.lstrip().lower().startswith(_HTML_STARTS):
        return "an HTML or XML page, probably an error page saved by a download"
    of_size = "" if size_bytes is None else f" of {size_bytes} bytes"
    return f"{_describe_binary(head)}{of_size}"


def _describe_binary(head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive (TorchScript, .pt2, .npz or the like)"
    if head[0] == 0x80 and len(head) > 1 and head[1] <= 5:
        return "a Python pickle"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "a text file"
    return "a truncated or foreign binary file"
