"""The last differences between answers and those of shadows, in a file for each model."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from trivet.backends.api import Tensor
from trivet.server.logs.outage import Outage
from trivet.server.models.shadowing import Shadow

log = logging.getLogger(__name__)
MOST = 1000
"""Differences of one model."""
MOST_VALUES = 64
MOST_CHARACTERS = 1024
HIDDEN = "(redacted)"


class KeptDifferences:
    """Owned by one thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts: dict[Path, int] = {}
        self._outage = Outage()

    def keep(self, key: str, difference: Mapping[str, Any]) -> None:
        """Writes one down. A disk that fails is told to the log."""
        path = self.path_of(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(orjson.dumps(difference, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
            count = self._counts.get(path) or len(path.read_bytes().splitlines())
            self._counts[path] = count + 1 if path in self._counts else count
            if self._counts[path] >= 2 * MOST:
                self._forget_old(path)
            self._outage.ends()
        except OSError as error:
            if self._outage.goes_on():
                log.error("differences of shadows cannot be kept: %s", error)  # noqa: TRY400

    def read(self, key: str) -> list[bytes]:
        """The last ones of a model, the oldest first."""
        try:
            return self.path_of(key).read_bytes().splitlines()[-MOST:]
        except OSError:
            return []

    def path_of(self, key: str) -> Path:
        """Where those of a model are."""
        return self._folder / f"{quote(key, safe='')}.jsonl"

    def _forget_old(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)[-MOST:]
        made = path.with_suffix(".tmp")
        made.write_bytes(b"".join(lines))
        made.replace(path)
        self._counts[path] = len(lines)


def shown(tensors: Sequence[Tensor], setting: Shadow) -> dict[str, Any]:
    """The first values of tensors, but for those that are not to be kept."""
    return {each.name: HIDDEN if setting.hides(each.name) else _values(each) for each in tensors}


def _values(tensor: Tensor) -> list[Any]:
    values = tensor.numpy().ravel()[:MOST_VALUES].tolist()
    return [_text(value) if isinstance(value, bytes | str) else value for value in values]


def _text(value: bytes | str) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text[:MOST_CHARACTERS]
