"""A config of the operator's own for a model of a hub or registry, which has none that counts."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from trivet.server.remote.source import Changed, OneModel, RemoteError, Source, Stamp
from trivet.server.repository.config import CONFIG_NAME, MAX_CONFIG_BYTES

OPTION = "--remote-config"


class Configured:
    """A Source: another one, with a file of this machine as its model's config."""

    def __init__(self, source: Source, model: str, file: Path) -> None:
        self.address = source.address
        self._source = source
        self._path = f"{model}/{CONFIG_NAME}"
        self._file = file

    def listing(self) -> dict[str, Stamp]:
        """See Source."""
        content = self._read()
        digest = hashlib.sha256(content).hexdigest()
        stamp = Stamp(len(content), f"config {digest}", digest)
        return {**self._source.listing(), self._path: stamp}

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:
        """See Source."""
        if path != self._path:
            yield from self._source.fetch(path, stamp, into, at)
            return
        content = self._read()
        if hashlib.sha256(content).hexdigest() != stamp.sha256:
            raise Changed
        into.write_bytes(content)
        yield len(content) - at

    def _read(self) -> bytes:
        try:
            with self._file.open("rb") as file:
                content = file.read(MAX_CONFIG_BYTES + 1)
        except OSError as error:
            raise RemoteError(
                f"{self.address}: {OPTION} names '{self._file}', which cannot be read: "
                f"{error.strerror}"
            ) from error
        if len(content) > MAX_CONFIG_BYTES:
            raise RemoteError(
                f"{self.address}: {OPTION} names '{self._file}', which has more than "
                f"{MAX_CONFIG_BYTES} bytes"
            )
        return content


def parse_configs(given: Iterable[str]) -> dict[str, Path]:
    """By model: the file of its config. Raises RemoteError."""
    found: dict[str, Path] = {}
    for each in given:
        model, is_given, file = each.partition("=")
        if not model or not is_given or not file or model in found:
            raise RemoteError(f"{OPTION}={each}: it is MODEL=FILE, once for each model")
        found[model] = Path(file)
    return found


def configured(source: Source, configs: Mapping[str, Path]) -> Source:
    """The source, with the config of its model if there is one."""
    if not isinstance(source, OneModel) or source.model not in configs:
        return source
    return Configured(source, source.model, configs[source.model])
