"""Finds the backend of a model by what each says of itself in its `about.py`, and imports it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

import trivet
import trivet.backends
from trivet.backends.api import About, Backend, InvalidConfig, Listing, LoadFailed, ModelFiles
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "trivet.backends"
"""Backends of other packages: entry point name = backend word, value = its About."""


@dataclass(frozen=True, slots=True)
class FoundBackend:
    """A backend and what it says of itself."""

    about: About
    backend: Backend


def find_backend(config: ModelConfig, files: ModelFiles) -> FoundBackend:
    """The backend that a config, or failing that the version's files and name, ask for.

    Raises InvalidConfig when none is named or known, LoadFailed when its framework is missing.
    """
    about = choose_about(config, files)
    return FoundBackend(about, _open(about))


def open_backend(word: str) -> Backend:
    """The backend of a word. Raises InvalidConfig for an unknown one, LoadFailed without its
    framework."""
    return _open(about_of(word))


def choose_about(config: ModelConfig, files: ModelFiles) -> About:
    """Whose a model is: by `backend`, `platform`, a field of the config, its files, its name.

    Imports no framework. Raises InvalidConfig where nothing says so, or for an unknown name.
    """
    if config.backend:
        return about_of(config.backend)
    known = abouts()
    if config.platform:
        return _of_platform(config.platform, known)
    given = {field.name for field, _ in config.ListFields()}
    for about in known.values():
        if about.config_field in given:
            return about
    listing = Listing.of(files, config.default_model_filename)
    claims = [
        (claim, about.preference, about.word)
        for about in known.values()
        if (claim := about.claim(listing)) is not None
    ]
    if claims:
        return known[min(claims)[-1]]
    raise InvalidConfig(
        f"model '{files.model_dir.name}': the config names no backend and neither the files of "
        f"version {files.version} nor the model's name tell it; set `backend` to one of "
        f"{sorted(known)}"
    )


def abouts() -> Mapping[str, About]:
    """Every backend that there is, by word. One of another package that cannot be read is left out
    and named in the log."""
    found = dict(_built_ins())
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name in found:
            continue
        try:
            found[entry_point.name] = _read(entry_point)
        except LoadFailed as error:
            log.warning("%s", error.message)
    return found


def about_of(word: str) -> About:
    """What the backend of a word says. Raises InvalidConfig for an unknown one, LoadFailed for one
    of another package that cannot be read."""
    built_in = _built_ins().get(word)
    if built_in is not None:
        return built_in
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=word):
        return _read(entry_point)
    raise InvalidConfig(f"unknown backend '{word}'; the known ones are {sorted(abouts())}")


@cache
def _built_ins() -> Mapping[str, About]:
    """Those of our own folders: every About in an `about.py` there."""
    found: dict[str, About] = {}
    for package in (trivet.backends, trivet):
        for folder in package.__path__:
            for path in sorted(Path(folder).glob("*/about.py")):
                module = import_module(f"{package.__name__}.{path.parent.name}.about")
                of_module = [each for each in vars(module).values() if isinstance(each, About)]
                found |= {about.word: about for about in of_module}
    return found


def _read(entry_point: EntryPoint) -> About:
    """Raises LoadFailed."""
    try:
        about = entry_point.load()
    except (ImportError, AttributeError) as error:
        raise LoadFailed(
            f"what backend '{entry_point.name}' says of itself cannot be imported from "
            f"{entry_point.value}: {error}"
        ) from error
    if not isinstance(about, About) or about.word != entry_point.name:
        is_what = f"one of '{about.word}'" if isinstance(about, About) else repr(about)
        raise LoadFailed(
            f"the entry point '{entry_point.name}' of {ENTRY_POINT_GROUP} gives {is_what}; it must "
            "give the trivet.backends.api.About of that word, which says where the Backend is"
        )
    return about


def _of_platform(platform: str, known: Mapping[str, About]) -> About:
    for about in known.values():
        if platform in about.platforms:
            return about
    words = sorted(word for about in known.values() for word in about.platforms)
    raise InvalidConfig(
        f"unknown platform '{platform}'; the known ones are {words}. Set `backend` instead"
    )


def _open(about: About) -> Backend:
    """Imports it. Raises LoadFailed."""
    module, _, name = about.backend.partition(":")
    try:
        backend = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise _missing(about, error) from error
    if backend is None:
        raise LoadFailed(
            f"backend '{about.word}' should be at {about.backend}, but there is no '{name}'"
        )
    return cast("Backend", backend)  # the contract of About.backend


def _missing(about: About, error: ModuleNotFoundError) -> LoadFailed:
    package = (error.name or "").split(".")[0]
    fix = about.install if package in about.packages and about.install else package
    return LoadFailed(
        f"backend '{about.word}' needs the package '{package}', which is not installed: "
        f"pip install {fix}"
    )
