"""What lies in the model repositories now: folders to an immutable snapshot."""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trivet.backends.api import ModelFiles
from trivet.backends.api.naming import key_of

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Of each file: path in the folder, size in bytes, modification time in ns, inode."""

MAX_FILES = 100_000
_NAME = re.compile(r"(?! )[A-Za-z0-9._,+@ -]{1,255}(?<! )")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_IGNORED_SUFFIXES = ("~", ".swp", ".swx", ".tmp", ".part", ".crdownload")


class RepositoryUnreadableError(Exception):
    """A repository folder is missing or cannot be read; what serves goes on serving."""


class _UnusableFolderError(Exception):
    """A model folder holds something that must not be served; the text says what."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder at one moment."""

    name: str
    path: Path
    config: Fingerprint
    """Of everything that is not in a version folder: config, labels, warm-up data."""
    versions: Mapping[int, Fingerprint]
    namespace: str = ""
    """The repository, where these are namespaces."""

    @property
    def key(self) -> str:
        """What the server knows the model by."""
        return key_of(self.namespace, self.name)

    def files(self, version: int) -> ModelFiles:
        """Where those of a version are."""
        return ModelFiles(self.path, version)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All repositories at one moment, by the models' keys."""

    models: Mapping[str, ModelFolder]
    problems: Mapping[str, str]
    """Models that cannot be served at all, and why."""


def scan(roots: Sequence[Path], *, is_namespaced: bool = False) -> Snapshot:
    """Looks at every model folder; `is_namespaced`: each root may have a model of a name. Raises
    RepositoryUnreadableError for a root without access."""
    models: dict[str, ModelFolder] = {}
    problems: dict[str, str] = {}
    for root in _distinct(roots):
        for path in _model_folders(root):
            namespace = str(root) if is_namespaced else ""
            key = key_of(namespace, path.name)
            if key in models or key in problems:
                others = models.pop(key).path.parent if key in models else "another one"
                problems[key] = (
                    f"model '{key}' is in two repositories, '{others}' and '{root}'; rename or "
                    "remove one of them, or serve both (--model-namespacing)"
                )
                continue
            try:
                models[key] = replace(_scan_model(path, root.resolve()), namespace=namespace)
            except _UnusableFolderError as error:
                problems[key] = str(error)
            except OSError as error:
                problems[key] = f"the folder cannot be read: {error.strerror}"
    return Snapshot(models, problems)


def _distinct(roots: Sequence[Path]) -> Iterator[Path]:
    """The folders, each once, however often and by whatever way it is named."""
    seen: set[Path] = set()
    for root in roots:
        place = root.resolve()
        if place not in seen:
            seen.add(place)
            yield root


def _model_folders(root: Path) -> list[Path]:
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
        return [Path(entry.path) for entry in entries if _is_model(entry)]
    except OSError as error:
        raise RepositoryUnreadableError(
            f"model repository '{root}' cannot be read: {error.strerror}"
        ) from None


def _is_model(entry: os.DirEntry[str]) -> bool:
    if is_ignored(entry.name) or not entry.is_dir():
        return False
    if not _NAME.fullmatch(entry.name):
        log.warning(
            "folder %r is no model: names have 1 to 255 of A-Z a-z 0-9 . _ , + @ - and blanks "
            "between them",
            entry.name[:300],
        )
        return False
    return True


def is_ignored(name: str) -> bool:
    """Whether a file or folder is an editor's or a copy tool's, or hidden."""
    return name.startswith(".") or name.endswith(_IGNORED_SUFFIXES) or name == "__pycache__"


def _scan_model(path: Path, root: Path) -> ModelFolder:
    config: list[tuple[str, int, int, int]] = []
    versions: dict[int, Fingerprint] = {}
    budget = MAX_FILES
    for entry in _entries(path, root):
        if is_ignored(entry.name):
            continue
        if not entry.is_dir():
            config.append(_stamp(entry, entry.name))
        elif _VERSION.fullmatch(entry.name):
            fingerprint = tuple(_walk(Path(entry.path), root, "", budget))
            budget -= len(fingerprint)
            versions[int(entry.name)] = fingerprint
        elif not entry.name.isdigit():
            config += _walk(Path(entry.path), root, f"{entry.name}/", budget)
    return ModelFolder(path.name, path, tuple(sorted(config)), versions)


def _walk(
    folder: Path, root: Path, prefix: str, budget: int
) -> Iterator[tuple[str, int, int, int]]:
    """The stamps of all files below a folder, in order; empty sub-folders do not count."""
    pending = [(folder, prefix)]
    while pending:
        here, before = pending.pop()
        for entry in sorted(_entries(here, root), key=lambda entry: entry.name):
            if is_ignored(entry.name):
                continue
            budget -= 1
            if budget < 0:
                raise _UnusableFolderError(f"the folder has more than {MAX_FILES} files")
            if entry.is_dir():
                if entry.is_symlink():
                    # A link to a folder above would never end.
                    _refuse_loop(Path(entry.path))
                pending.append((Path(entry.path), f"{before}{entry.name}/"))
            else:
                yield _stamp(entry, before + entry.name)


def _refuse_loop(link: Path) -> None:
    target = link.resolve()
    if link.parent.resolve().is_relative_to(target):
        raise _UnusableFolderError(f"link '{link.name}' points to a folder that contains it")


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder; one that vanishes while it is read counts as empty."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _UnusableFolderError(
            f"folder '{folder.name}' cannot be read: {error.strerror}"
        ) from None
    for entry in entries:
        if entry.is_symlink() and not is_ignored(entry.name):
            _check_link(Path(entry.path), root)
    return entries


def _check_link(link: Path, root: Path) -> None:
    try:
        target = link.resolve(strict=True)
    except FileNotFoundError:
        return
    except (OSError, RuntimeError) as error:
        raise _UnusableFolderError(_why_not(link.name, error)) from None
    if not target.is_relative_to(root):
        raise _UnusableFolderError(
            f"link '{link.name}' points outside the model repository; copy the file instead"
        )


def _stamp(entry: os.DirEntry[str], name: str) -> tuple[str, int, int, int]:
    try:
        status = entry.stat()
    except FileNotFoundError:
        # It vanished, or a link dangles: the next scan will see what became of it.
        return (name, -1, 0, 0)
    except OSError as error:
        raise _UnusableFolderError(_why_not(name, error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise _UnusableFolderError(f"'{name}' is not a regular file")
    return (name, status.st_size, status.st_mtime_ns, status.st_ino)


def _why_not(name: str, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno != errno.ELOOP:
        return f"'{name}' cannot be read: {error.strerror}"
    return f"link '{name}' leads nowhere or in a circle"
