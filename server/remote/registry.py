"""`mlflow://models:/NAME@ALIAS`: a model of an MLflow registry, as a repository that holds this one
model. Its version folder has MLflow's number, so an alias that moves is another version. Where it
has moved on, the one before is listed as long as it serves; where it moves back, that goes first.
"""

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trivet.server.remote.registry_answers import refusals
from trivet.server.remote.registry_files import Artifacts, files_of
from trivet.server.remote.source import Changed, RemoteError, Stamp, Unreachable
from trivet.server.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_ADDRESS = re.compile(
    r"mlflow://models:/(?P<name>[^/@:]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+|latest))"
)
_FORM = "mlflow://models:/NAME@ALIAS, mlflow://models:/NAME/VERSION or mlflow://models:/NAME/latest"
_OURS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Whose server this is: MLflow neither reports home nor writes to our terminal."""
_UNLESS_SET = {
    # Whoever asks tries again, and says so in the log. MLflow's own eight tries take minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_WHERE = ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._,+@ -]")


@dataclass(frozen=True, slots=True)
class Address:
    """What an address says: an alias, or a version ("latest": the newest)."""

    name: str
    alias: str = ""
    version: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether it names one version for ever."""
        return self.version.isdigit()

    @property
    def model(self) -> str:
        """The model's name here."""
        return _NOT_IN_NAMES.sub("-", self.name).strip()

    @property
    def uri(self) -> str:
        """As MLflow writes it."""
        return f"models:/{self.name}{f'@{self.alias}' if self.alias else f'/{self.version}'}"


@dataclass(frozen=True, slots=True)
class _Version:
    """A version of the registry, and its files. What is registered does not change."""

    number: int
    registered_at: str
    """When and from where: a number may be given again after a version was deleted."""
    artifacts: Artifacts
    stamps: Mapping[str, Stamp]
    """By path in the version folder."""


def read_address(text: str) -> Address:
    """Raises RemoteError."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        named = re.fullmatch(r"mlflow://models:/[^/@:]+", text)
        why = "names no version or alias" if named else "does not have the form"
        raise RemoteError(f"model repository '{masked(text)}' {why}; the form is {_FORM}")
    return Address(found["name"], found["alias"] or "", found["version"] or "")


def masked(text: str) -> str:
    """An address or a message without what may be a password in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def open_registry(address: str, settings: Settings) -> "RegistrySource":  # noqa: ARG001 - of OpenSource
    """See OpenSource. Where the registry is and who may read it, MLflow's own variables say."""
    asked = read_address(address)
    os.environ.update(_OURS)
    for name, value in _UNLESS_SET.items():
        os.environ.setdefault(name, value)
    import mlflow

    if not any(map(os.environ.get, _WHERE)):
        raise RemoteError(
            f"model repository '{address}': nothing says where the registry is; set "
            "MLFLOW_TRACKING_URI to the address of the tracking server, such as "
            "http://mlflow.example:5000"
        )
    return RegistrySource(address, asked, masked(mlflow.get_registry_uri()))


class RegistrySource:
    """A model of a registry. Its lock guards the version that was found last."""

    def __init__(self, text: str, address: Address, registry: str) -> None:
        self.address = text
        self._asked = address
        self._registry = registry
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._before: tuple[_Version, ...] = ()
        """Versions that may serve yet."""
        self._kept: frozenset[int] = frozenset()

    @property
    def model(self) -> str:
        """See OneModel."""
        return self._asked.model

    def keep(self, versions: frozenset[int]) -> None:
        """See OneModel."""
        self._kept = versions

    @cached_property
    def _client(self) -> "MlflowClient":
        from mlflow import MlflowClient

        return MlflowClient()

    def listing(self) -> dict[str, Stamp]:
        """See Source."""
        with self._lock:
            if self._version is None or not self._asked.is_fixed:
                with refusals(self._registry, self._asked.uri):
                    self._turn_to(self._found())
            assert self._version is not None, "found above, now or before"
            versions = (*self._before, self._version)
        return {
            f"{self.model}/{version.number}/{path}": stamp
            for version in versions
            for path, stamp in version.stamps.items()
        }

    def _turn_to(self, version: _Version) -> None:
        kept = self._kept
        older = (*self._before, *((self._version,) if self._version is not None else ()))
        self._before = tuple(e for e in older if e.number in kept and e.number < version.number)
        self._version = version

    def fetch(self, path: str, stamp: Stamp, into: Path, at: int) -> Iterator[int]:
        """See Source."""
        version, place = self._origin(path, stamp)
        with into.open("ab") as file:
            for chunk in self._content(version, place, into, at):
                file.write(chunk)
                file.flush()
                yield len(chunk)

    def _origin(self, path: str, stamp: Stamp) -> tuple[_Version, str]:
        """The version and the path there of a file that was listed. Raises Changed."""
        with self._lock:
            versions = (*self._before, self._version)
        for version in versions:
            assert version is not None, "fetched before it was listed"
            place = path.removeprefix(f"{self.model}/{version.number}/")
            if version.stamps.get(place) == stamp:
                return version, place
        raise Changed

    def _content(self, version: _Version, place: str, into: Path, at: int) -> Iterator[bytes]:
        with refusals(self._registry, f"{self._asked.uri}, '{place}'"):
            scratch = into.with_name(f"{into.name}.whole")
            yield from version.artifacts.content(place, at, scratch)

    # -- the registry --------------------------------------------------------------------------

    def _found(self) -> _Version:
        """The version that the address means now; its files are listed when it is another one.
        Raises RemoteError, MlflowException."""
        told = self._asked_for()
        self._check_status(told)
        registered_at = f"{told.creation_timestamp} {told.run_id} {told.source}"
        number = int(told.version)
        before = self._version
        if before and (before.number, before.registered_at) == (number, registered_at):
            return before
        place = self._client.get_model_version_download_uri(told.name, told.version)
        artifacts = Artifacts.at(place)
        sizes = files_of(artifacts, masked(place))
        log.info("%s is version %d of '%s', %d files", self.address, number, told.name, len(sizes))
        origin = f"{self._registry} {told.name} {number} {registered_at}"
        stamps = {path: Stamp(size, f"{origin} {path}") for path, size in sizes.items()}
        return _Version(number, registered_at, artifacts, stamps)

    def _asked_for(self) -> Any:
        """MLflow's ModelVersion. Raises MlflowException, RemoteError."""
        asked = self._asked
        if asked.alias:
            return self._client.get_model_version_by_alias(asked.name, asked.alias)
        if asked.is_fixed:
            return self._client.get_model_version(asked.name, asked.version)
        name = asked.name.replace("'", "''")
        found = self._client.search_model_versions(
            f"name = '{name}'", max_results=1, order_by=["version_number DESC"]
        )
        if not found:
            raise RemoteError(f"the registry at {self._registry} has no version of '{asked.name}'")
        return found[0]

    def _check_status(self, told: Any) -> None:
        if told.status == "READY":
            return
        text = f"{self._asked.uri}: version {told.version} is {told.status} in the registry"
        if told.status == "PENDING_REGISTRATION":
            raise Unreachable(f"{text}; it is taken when it is READY")
        raise RemoteError(f"{text}: register it again ({told.status_message or 'no reason given'})")
