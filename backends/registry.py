"""Finds the backend of a model by what each says of itself in its `about.py`, and imports it."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

import trivet
import trivet.backends
from trivet.backends.api import (
    About,
    Backend,
    InvalidConfig,
    Listing,
    LoadFailed,
    Match,
    ModelFiles,
)
from trivet.backends.strangers import nothing_known, several, strangers
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "trivet.backends"
"""Backends of other packages: entry point name = backend word, value = its About."""


@dataclass(frozen=True, slots=True)
class FoundBackend:
    """A backend and what it says of itself."""

    about: About
    backend: Backend
    model_file: str = ""
    """What is the model, where neither the config nor the backend's usual names say."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose a model is, before the backend is imported, and which file is the model."""

    about: About
    model_file: str = ""


def find_backend(config: ModelConfig, files: ModelFiles) -> FoundBackend:
    """The backend that a config, or failing that the version's files and name, ask for.

    Raises InvalidConfig when none is named or known, LoadFailed when its framework is missing.
    """
    chosen = choose(config, files)
    return FoundBackend(chosen.about, _open(chosen.about), chosen.model_file)


def open_backend(word: str) -> Backend:
    """The backend of a word. Raises InvalidConfig for an unknown one, LoadFailed without its
    framework."""
    return _open(about_of(word))


def choose(config: ModelConfig, files: ModelFiles) -> Choice:
    """Whose a model is: by `backend`, `platform`, a field of the config, its files, its name.

    Imports no framework. Raises InvalidConfig where nothing says so, where several do and for an
    unknown name, and OSError where the disk does not give out the files.
    """
    about = _of_config(config)
    if about is not None and not about.reads_model_file:
        return Choice(about)
    listing = Listing.of(files, config.default_model_filename)
    if about is not None:
        match = about.match(listing)
        return Choice(about, _own_file(config, match) if match is not None else "")
    known = abouts().values()
    found = claims(listing, known)
    if not found:
        where = f"model '{files.name}' version {files.version}"
        raise InvalidConfig(f"{where}: {advice(listing, known)}")
    return _best(config, files, found)


def choose_about(config: ModelConfig, files: ModelFiles) -> About:
    """The backend alone; see `choose`."""
    return choose(config, files).about


def claims(listing: Listing, known: Iterable[About]) -> list[tuple[Match, About]]:
    """All backends that a version may be of, the best first. `known`: of `abouts`, which who looks
    at many models asks for once."""
    matches = ((about.match(listing), about) for about in known)
    found = [(match, about) for match, about in matches if match is not None]
    return sorted(found, key=lambda each: (each[0].claim, each[1].preference, each[1].word))


def advice(listing: Listing, known: Collection[About], *, is_sure: bool = False) -> str:
    """What to do about files that no backend claims: one sentence. `is_sure`: empty where nothing
    more can be said than what is known. Raises OSError."""
    for about in known:
        text = about.advise(listing) if about.advise is not None else None
        if text:
            return text
        if len(found := about.candidates(listing)) > 1:
            return several(found, about.word, about.model_files[0])
    text = next(strangers(listing), "")
    if text or is_sure:
        return text
    usual = [about.model_files[0] for about in known if about.model_files]
    return nothing_known(listing, sorted(usual))


def _of_config(config: ModelConfig) -> About | None:
    """The backend that the config itself names."""
    if config.backend:
        return about_of(config.backend)
    known = abouts()
    if config.platform:
        return _of_platform(config.platform, known)
    given = {field.name for field, _ in config.ListFields()}
    return next((about for about in known.values() if about.config_field in given), None)


def _own_file(config: ModelConfig, match: Match) -> str:
    return "" if config.default_model_filename else match.model_file


def _best(config: ModelConfig, files: ModelFiles, found: Sequence[tuple[Match, About]]) -> Choice:
    """Raises InvalidConfig where two claims are as good."""
    match, about = found[0]
    rivals = [
        (other, its)
        for other, its in found[1:]
        if other.claim == match.claim
        and (its.preference == about.preference or other.model_file != match.model_file)
    ]
    if rivals:
        listed = ", ".join(_described(each, its) for each, its in (found[0], *rivals))
        raise InvalidConfig(
            f"model '{files.name}' version {files.version} could be of several backends: {listed}; "
            "set `backend` in its config.pbtxt (and `default_model_filename` to the file), or "
            "remove what is not the model"
        )
    return Choice(about, _own_file(config, match))


def _described(match: Match, about: About) -> str:
    return f"'{about.word}'" + (f" ('{match.model_file}')" if match.model_file else "")


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
    known = sorted(abouts())
    raise InvalidConfig(
        f"unknown backend '{word}'{_meant(word, known)}; the known ones are {known}"
    )


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
        f"unknown platform '{platform}'{_meant(platform, words)}; the known ones are {words}. Set "
        "`backend` instead"
    )


def _meant(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word[:255].lower(), known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


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
