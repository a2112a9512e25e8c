"""The files of a version of an MLflow registry, wherever it keeps them."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from trivet.server.remote.resuming import behind
from trivet.server.remote.source import CHUNK_BYTES, RemoteError

MANIFEST = "MLmodel"
MAX_FILES = 10_000
MAX_DEPTH = 32
"""Of a version: whoever may register one decides what folder that is."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """A folder of MLflow's: at a tracking server, in a bucket or on this machine."""

    repository: Any
    """MLflow's ArtifactRepository."""

    @classmethod
    def at(cls, uri: str) -> Self:
        """Raises MlflowException."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        found = get_artifact_repository(uri)
        return cls(getattr(found, "repo", found))  # of models:/ and runs:/, what is behind

    def content(self, path: str, at: int, scratch: Path) -> Iterator[bytes]:
        """A file's bytes from `at` on. `scratch`: a file for what cannot be read as it comes.
        Raises MlflowException and the errors of the clients that MLflow uses."""
        from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        if isinstance(self.repository, HttpArtifactRepository):
            yield from _by_http(self.repository.artifact_uri, path, at)
        elif isinstance(self.repository, LocalArtifactRepository):
            yield from _of_file(Path(self.repository.get_local_path(path)), at)
        else:
            try:
                # What every repository must have; the public way takes a folder and lists first.
                self.repository._download_file(path, str(scratch))  # noqa: SLF001
                yield from _of_file(scratch, at)
            finally:
                scratch.unlink(missing_ok=True)


def files_of(artifacts: Artifacts, where: str) -> dict[str, int]:
    """Every file's size by its path. Raises RemoteError, where no model lies there, and
    MlflowException."""
    top = artifacts.repository.list_artifacts()
    if not any(each.path == MANIFEST and not each.is_dir for each in top):
        raise RemoteError(
            f"there is no file {MANIFEST} at {where}, where the registry says that the version is: "
            "it is no model that MLflow has logged, or this machine does not see that place"
        )
    sizes: dict[str, int] = {}
    pending = [(each, 1) for each in top]
    while pending:
        found, depth = pending.pop()
        if len(sizes) > MAX_FILES or depth > MAX_DEPTH:
            raise RemoteError(
                f"{where} has more than {MAX_FILES} files or {MAX_DEPTH} folders in each other; "
                "the model must lie in a folder of its own"
            )
        if found.is_dir:
            inner = artifacts.repository.list_artifacts(found.path)
            pending += ((each, depth + 1) for each in inner)
        elif found.file_size is None:
            raise RemoteError(f"{where} does not tell the size of '{found.path}'")
        else:
            sizes[found.path] = int(found.file_size)
    return sizes


def _of_file(path: Path, at: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(at)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _by_http(uri: str, path: str, at: int) -> Iterator[bytes]:
    """As MLflow downloads it, but in the middle of a file, too. Its server knows no ranges."""
    from mlflow.utils import credentials, rest_utils

    ask: Any = rest_utils.http_request  # untyped, as the next
    find: Any = credentials.get_default_host_creds
    headers = {"Range": f"bytes={at}-"} if at else {}
    place = posixpath.join("/", path)
    with ask(find(uri), place, "GET", stream=True, extra_headers=headers) as response:
        response.raise_for_status()
        begins = 0 if response.status_code == 200 else at
        yield from behind(response.iter_content(CHUNK_BYTES), at - begins)
