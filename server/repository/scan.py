"""What lies in the model repositories now: folders to an immutable snapshot."""

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from trivet.backends.api import Listing
from trivet.backends.api.adapting import ADAPTERS
from trivet.backends.api.naming import key_of
from trivet.backends.registry import abouts, advice
from trivet.server.repository.layout import (
    CONFIG_FOLDERS,
    EVALUATION_FILE,
    EVALUATION_FOLDER,
    TRAFFIC_FILE,
    Abouts,
    Fingerprint,
    ModelFolder,
    flat,
    is_one_model,
    lone_models,
    model_of_file,
    parted,
)

log = logging.getLogger(__name__)

MAX_FILES = 100_000
NAME = re.compile(r"(?! )[A-Za-z0-9._,+@ -]{1,255}(?<! )")
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
NO_ADDRESSES: Mapping[Path, str] = MappingProxyType({})
_BESIDE_VERSIONS = frozenset({*CONFIG_FOLDERS, EVALUATION_FOLDER, ADAPTERS})
_IGNORED_SUFFIXES = ("~", ".swp", ".swx", ".tmp", ".part", ".crdownload")


class RepositoryUnreadableError(Exception):
    """A repository folder is missing or cannot be read; what serves goes on serving."""


class _UnusableFolderError(Exception):
    """A model folder holds something that must not be served; the text says what."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All repositories at one moment, by the models' keys."""

    models: Mapping[str, ModelFolder]
    """Strangers too: what looks like a model and is taken for none."""
    problems: Mapping[str, str]
    """Models that cannot be served at all, and why."""

    def keys(self) -> list[str]:
        """Of all that is taken for a model."""
        return [key for key, folder in self.models.items() if not folder.is_stranger]

    def strangers(self) -> list[str]:
        """The keys of all that is taken for none."""
        return [key for key, folder in self.models.items() if folder.is_stranger]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing that might serve."""
        return not self.problems and all(each.is_stranger for each in self.models.values())


def scan(
    roots: Sequence[Path],
    *,
    is_namespaced: bool = False,
    addresses: Mapping[Path, str] = NO_ADDRESSES,
) -> Snapshot:
    """Looks at every model; `is_namespaced`: each root may have one of a name; `addresses`: of
    roots that stand for repositories elsewhere. Raises RepositoryUnreadableError for a root without
    access."""
    models: dict[str, ModelFolder] = {}
    problems: dict[str, str] = {}
    known = abouts().values()
    for root in _distinct(roots):
        namespace = addresses.get(root, str(root)) if is_namespaced else ""
        for name, found in _of_root(root, known):
            key = key_of(namespace, name)
            if key in models or key in problems:
                problems[key] = _twice(key, root, models.pop(key, None), addresses)
            elif isinstance(found, ModelFolder):
                models[key] = replace(found, namespace=namespace)
            else:
                problems[key] = found
    return Snapshot(models, problems)


def _twice(name: str, root: Path, other: ModelFolder | None, addresses: Mapping[Path, str]) -> str:
    here = addresses.get(root, str(root))
    if other is None:
        there = "another one"
    else:
        place = other.path if other.lone else other.path.parent
        there = addresses.get(place, str(place))
    if there == here:
        return f"model '{name}' is there twice, in '{here}'; rename or remove one of them"
    return (
        f"model '{name}' is in two repositories, '{there}' and '{here}'; rename or remove one, or "
        "serve both (--model-namespacing)"
    )


def _of_root(root: Path, known: Abouts) -> Iterator[tuple[str, ModelFolder | str]]:
    """What lies in a repository, by name: a model, or why it cannot be one."""
    if root.is_file():
        yield from _of_file(root, known)
        return
    place = root.resolve()
    entries = _entries_of_root(root)
    if _is_versioned(entries):
        model = _attempt(partial(_scan_model, known=known), root, place)
        if isinstance(model, ModelFolder):
            model = replace(model, name=place.name)
        yield place.name, model
        return
    folders = [Path(entry.path) for entry in entries if _is_model(entry)]
    look = partial(_scan_model, known=known)
    found = [(path.name, _attempt(look, path, place)) for path in folders]
    try:
        files = [entry for entry in entries if _is_lone(entry)]
        refused = {entry.name: text for entry in files if (text := _why_not_lone(entry, place))}
        stamps = tuple(_stamp(entry, entry.name) for entry in files if entry.name not in refused)
        has_versions = any(isinstance(each, ModelFolder) and each.has_folders for _, each in found)
        if stamps and not has_versions and is_one_model(root, known):
            yield place.name, _attempt(_scan_whole, root, place)
            return
        lone = list(lone_models(root, stamps, known))
    except (OSError, _UnusableFolderError) as error:
        # Without a name of a model: whatever serves goes on.
        raise _unreadable(root, error) from None
    yield from found
    models = ((model_of_file(file, known), text) for file, text in refused.items())
    yield from ((model, text) for model, text in models if model)
    yield from ((each.name, each) for each in lone)


def _of_file(file: Path, known: Abouts) -> Iterator[tuple[str, ModelFolder | str]]:
    """The one model that a file is, with what belongs to it beside it."""
    folder = file.parent
    entries = [entry for entry in _entries_of_root(folder) if _is_lone(entry)]
    beside = [each for each in entries if each.name == file.name or not each.is_symlink()]
    try:
        stamps = tuple(_stamp(entry, entry.name) for entry in beside)
        found = next((m for m in lone_models(folder, stamps, known) if file.name in m.lone), None)
    except (OSError, _UnusableFolderError) as error:
        raise _unreadable(file, error) from None
    if found is None:
        listing = Listing(frozenset({file.name}), paths=frozenset({file.name}))
        yield file.stem, f"'{file.name}': {advice(listing, known)}"
    else:
        yield found.name, found


def _is_versioned(entries: Sequence[os.DirEntry[str]]) -> bool:
    """Whether the folder is one model's own: its folders are versions, and what is beside them."""
    folders = {entry.name for entry in entries if not is_ignored(entry.name) and entry.is_dir()}
    others = folders - _BESIDE_VERSIONS
    return bool(others) and all(map(_VERSION.fullmatch, others))


def _attempt(
    look: Callable[[Path, Path], ModelFolder], path: Path, place: Path
) -> ModelFolder | str:
    try:
        return look(path, place)
    except _UnusableFolderError as error:
        return str(error)
    except OSError as error:
        return f"the folder cannot be read: {error.strerror}"


def _scan_whole(root: Path, place: Path) -> ModelFolder:
    own, adapters = parted(tuple(_walk(root, place, "", MAX_FILES)))
    return ModelFolder(place.name, root, (), {1: own}, is_flat=True, adapters=adapters)


def _is_lone(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file that may be a model, or one of several that are."""
    is_file = not is_ignored(entry.name) and entry.is_file()
    return is_file and NAME.fullmatch(entry.name) is not None


def _why_not_lone(entry: os.DirEntry[str], place: Path) -> str:
    if not entry.is_symlink() or not _is_lone(entry):
        return ""
    try:
        _check_link(Path(entry.path), place)
    except _UnusableFolderError as error:
        return str(error)
    return ""


def _distinct(roots: Sequence[Path]) -> Iterator[Path]:
    """The folders, each once, however often and by whatever way it is named."""
    seen: set[Path] = set()
    for root in roots:
        place = root.resolve()
        if place not in seen:
            seen.add(place)
            yield root


def _entries_of_root(root: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(root, error) from None


def _unreadable(root: Path, error: Exception) -> RepositoryUnreadableError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return RepositoryUnreadableError(f"model repository '{root}' cannot be read: {reason}")


def _is_model(entry: os.DirEntry[str]) -> bool:
    if is_ignored(entry.name) or not entry.is_dir():
        return False
    if not NAME.fullmatch(entry.name):
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


def _scan_model(path: Path, root: Path, known: Abouts) -> ModelFolder:
    config: list[tuple[str, int, int, int]] = []
    traffic: Fingerprint = ()
    evaluation: list[tuple[str, int, int, int]] = []
    versions: dict[int, Fingerprint] = {}
    budget = MAX_FILES
    for entry in _entries(path, root):
        if is_ignored(entry.name):
            continue
        if entry.name == TRAFFIC_FILE:
            traffic = (_stamp(entry, entry.name),)
        elif entry.name == EVALUATION_FILE:
            evaluation.append(_stamp(entry, entry.name))
        elif entry.name == EVALUATION_FOLDER and entry.is_dir():
            evaluation += _walk(Path(entry.path), root, f"{entry.name}/", budget)
        elif not entry.is_dir():
            config.append(_stamp(entry, entry.name))
        elif _VERSION.fullmatch(entry.name):
            fingerprint = tuple(_walk(Path(entry.path), root, "", budget))
            budget -= len(fingerprint)
            versions[int(entry.name)] = fingerprint
        elif not entry.name.isdigit():
            config += _walk(Path(entry.path), root, f"{entry.name}/", budget)
    stamps, adapters = parted(tuple(sorted(config)))
    apart = tuple(sorted(evaluation))
    if versions:
        found = ModelFolder(path.name, path, stamps, versions, traffic=traffic, adapters=adapters)
    else:
        found = flat(path, stamps, known, adapters)
    return replace(found, evaluation=apart)


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
