"""What of a repository is switched at once: version folders, models without, lone files. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trivet.server.remote.source import Stamp

ROOT = ""
"""The place of a repository that is one model, and that model's name in here."""
_IN_VERSION = re.compile(r"([^/]+/[1-9][0-9]{0,18})/(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Piece:
    """Files that appear, change and vanish together."""

    files: Mapping[str, Stamp]
    """By path below the piece's place; a lone file's is empty."""

    @property
    def is_file(self) -> bool:
        """Whether it is a lone file and not a folder."""
        return "" in self.files


Pieces = Mapping[str, Piece]
"""By place: a path below the repository."""


def is_one_model(paths: Iterable[str]) -> bool:
    """Whether the repository itself may be a model: files in it, and no version folder below. Else
    what lies beside models (a README) makes them change together, which does no harm."""
    has_files = False
    for path in paths:
        if _IN_VERSION.fullmatch(path):
            return False
        has_files = has_files or "/" not in path
    return has_files


def pieces_of(files: Mapping[str, Stamp]) -> dict[str, Piece]:
    """A repository's files as pieces."""
    if is_one_model(files):
        return {ROOT: Piece(files)}
    versioned = {path.partition("/")[0] for path in files if _IN_VERSION.fullmatch(path)}
    found: dict[str, dict[str, Stamp]] = {}
    for path, stamp in files.items():
        place, below = _place_of(path, versioned)
        found.setdefault(place, {})[below] = stamp
    return {place: Piece(files) for place, files in found.items()}


def _place_of(path: str, versioned: Iterable[str]) -> tuple[str, str]:
    in_version = _IN_VERSION.fullmatch(path)
    if in_version is not None:
        return in_version[1], in_version[2]
    model, slash, below = path.partition("/")
    if slash and model not in versioned:
        return model, below
    return path, ""


def model_of(place: str) -> str:
    """The model that a place belongs to, by its folder or lone file; ROOT of the whole."""
    return place.partition("/")[0]


def are_nested(one: str, other: str) -> bool:
    """Whether one place lies in the other."""
    return one == other or _is_above(one, other) or _is_above(other, one)


def _is_above(folder: str, place: str) -> bool:
    return folder == ROOT or place.startswith(f"{folder}/")
