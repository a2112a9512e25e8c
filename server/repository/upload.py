"""A model that a client sent with its load: files in a folder of the server's own.

They are all that the model is made of, and nothing in a repository changes by them.
"""

import errno
import logging
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from trivet.backends.api import LoadFailed
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.scan import scan

log = logging.getLogger(__name__)
NO_FILES: Mapping[str, bytes] = {}
"""By path in the model's folder: VERSION/NAME."""

_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_LONGEST_PATH = 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A sent model on disk. Whoever made it closes it."""

    root: Path
    folder: ModelFolder

    @classmethod
    def store(cls, name: str, files: Mapping[str, bytes], max_bytes: int) -> "Upload":
        """Writes the files down. Raises LoadFailed where they may not or cannot be written."""
        _check(name, files, max_bytes)
        root = Path(tempfile.mkdtemp(prefix="trivet-upload-")).resolve()
        try:
            for path, content in files.items():
                place = root / name / path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            folder = scan([root]).models.get(name)
        except OSError as error:
            shutil.rmtree(root, ignore_errors=True)
            if error.errno == errno.ENOSPC:
                log.error("no space for the files of model '%s' in '%s'", name, root)  # noqa: TRY400
            raise _refused(name, f"its files cannot be stored: {error.strerror}") from None
        if folder is None:
            shutil.rmtree(root, ignore_errors=True)
            raise _refused(name, "that is no name of a model")
        return cls(root, replace(folder, is_sent=True))

    def close(self) -> None:
        """Removes the files."""
        shutil.rmtree(self.root, ignore_errors=True)


def _check(name: str, files: Mapping[str, bytes], max_bytes: int) -> None:
    for path in files:
        if not _is_in_version(path):
            raise _refused(
                name,
                f"load parameter 'file:{path[:200]}' names no file within a version folder; that "
                "is file:VERSION/NAME, such as file:1/model.onnx",
            )
    size_bytes = sum(map(len, files.values()))
    if size_bytes > max_bytes:
        raise _refused(
            name,
            f"its files have {size_bytes} bytes; the limit is {max_bytes} bytes "
            "(--max-model-upload-size)",
        )


def _is_in_version(path: str) -> bool:
    """Whether a path stays in a version's folder however it is read."""
    version, *rest = path.split("/")
    return (
        _VERSION.fullmatch(version) is not None
        and bool(rest)
        and all(part not in ("", ".", "..") for part in rest)
        and len(path) <= _LONGEST_PATH
        and path.isprintable()
        and "\\" not in path
        and not PurePosixPath(path).is_absolute()
    )


def _refused(name: str, why: str) -> LoadFailed:
    """In the words that Triton's clients look for."""
    return LoadFailed(f"failed to load '{name}', failed to poll from model repository: {why}")
