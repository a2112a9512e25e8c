"""Which paths of a source can be files of a folder here. Pure.

Paths come from whoever writes to the source; nothing is written outside the cache folder for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trivet.server.remote.source import Stamp
from trivet.server.repository.scan import is_ignored

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 2048
"""Leaves room for the folder that the path is put below."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A listing as far as it can be used."""

    files: Mapping[str, Stamp]
    refused: Mapping[str, str]
    """The paths that can be no files here, and why, each a sentence."""


def checked(listing: Mapping[str, Stamp]) -> Checked:
    """What of a listing can be files here. Hidden files and leftovers of editors and copy tools are
    left out, as in a folder; so are the empty objects by which tools mark folders."""
    files: dict[str, Stamp] = {}
    refused: dict[str, str] = {}
    # The mark of the repository's own folder has no name below it.
    folders = {"", *(folder for path in listing for folder in _folders_above(path))}
    for path, stamp in listing.items():
        if stamp.size == 0 and path in folders:
            continue
        why = _why_no_file(path)
        if not why and path in folders:
            why = "it has the name of a folder with other files in it; rename one of them"
        if why:
            refused[path] = f"object {path[:300]!r} cannot be a file: {why}"
        elif not any(map(is_ignored, path.split("/"))):
            files[path] = stamp
    return Checked(files, refused)


def _folders_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _why_no_file(path: str) -> str:
    names = path.split("/")
    if "." in names or ".." in names:
        return "its name leads out of its folder ('.' or '..'); rename or remove it"
    if "" in names:
        return "a part of its name between slashes is empty; rename or remove it"
    if "\\" in path or any(not character.isprintable() for character in path):
        return "its name has a backslash or a character that cannot be shown; rename or remove it"
    try:
        longest, whole = max(len(name.encode()) for name in names), len(path.encode())
    except UnicodeEncodeError:
        return "its name is no text in UTF-8; rename or remove it"
    if longest > MAX_NAME_BYTES or whole > MAX_PATH_BYTES:
        return (
            f"its name has {whole} bytes, {longest} of them between two slashes; the limits are "
            f"{MAX_PATH_BYTES} and {MAX_NAME_BYTES}"
        )
    return ""
