"""What a requirements.txt asks for, and what of it the server's own environment lacks.

Of pip's format, packages by name are taken, with versions, extras, markers and hashes. Which index
they come from, and anything by URL or path, is for whoever runs the server to say, in pip's or uv's
own configuration: a folder of models says what it needs, not from where.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from trivet.backends.api import InvalidConfig

FILE = "requirements.txt"
MAX_BYTES = 1 << 20
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"--hash[=\s]\s*sha\d+:[0-9a-fA-F]+")
_FILES = ("-r", "--requirement", "-c", "--constraint")
_ARCHIVES = (".whl", ".gz", ".zip")
_SHOWN = 80
_WHERE = (
    "where packages come from is for whoever runs the server to say, in pip's or uv's own "
    "configuration"
)


@dataclass(frozen=True, slots=True)
class Unmet:
    """A requirement that is not met, and what there is instead."""

    requirement: Requirement
    found: str

    def __str__(self) -> str:
        return f"'{_short(self.requirement)}' ({self.found})"


@dataclass(frozen=True, slots=True)
class Requirements:
    """Those of one file."""

    listed: Sequence[Requirement]
    text: str
    """As a file for pip: the same, and nothing else."""
    refusal: str = ""
    """Why it cannot be installed as it is: what of it is not taken. Packages that are there do
    nevertheless."""

    @classmethod
    def read(cls, path: Path, model: str) -> "Requirements":
        """Raises OSError."""
        where = f"model '{model}': its {path.name}"
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            return cls((), "", f"{where} has more than {MAX_BYTES} bytes")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return cls((), "", f"{where} is not UTF-8 text")
        return cls.parse(_lines(text), where)

    @classmethod
    def parse(cls, lines: Iterator[tuple[int, str]], where: str) -> "Requirements":
        """Of numbered lines."""
        listed, kept, refusals = [], [], []
        for number, line in lines:
            words, *options = re.split(r"\s+(?=--)", line)
            try:
                listed.append(_requirement(words))
                _check_options(options)
            except InvalidConfig as error:
                refusals.append(f"{where}, line {number}: {error.message}")
            else:
                kept.append(" ".join((str(listed[-1]), *options)))
        return cls(tuple(listed), "\n".join((*kept, "")), next(iter(refusals), ""))

    def unmet(self) -> list[Unmet]:
        """What the environment that this runs in does not have."""
        seen: set[str] = set()
        return [
            unmet
            for each in self.listed
            if each.marker is None or each.marker.evaluate()
            for unmet in _unmet(each, seen)
        ]


def pip_line(lacking: Sequence[Unmet]) -> str:
    """The command that installs them."""
    return " ".join(("pip install", *(shlex.quote(_short(each.requirement)) for each in lacking)))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Without comments and empty ones, those that a backslash continues as one; with numbers."""
    first, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        plain = _COMMENT.sub("", line).rstrip()
        if plain.endswith("\\"):
            joined += f"{plain[:-1]} "
            continue
        if joined := (joined + plain).strip():
            yield first, joined
        first, joined = 0, ""
    if joined.strip():
        yield first, joined.strip()


def _requirement(text: str) -> Requirement:
    """Raises InvalidConfig."""
    if text.startswith("-"):
        option = _option(text)
        fix = f"write the lines of that file into it, too; {_WHERE}" if option in _FILES else _WHERE
        raise InvalidConfig(f"the option '{option}' is not taken: {fix}")
    is_named = "@" in text.partition("://")[0]
    if not is_named and ("://" in text or text.startswith((".", "/")) or text.endswith(_ARCHIVES)):
        raise InvalidConfig(f"packages by URL or path are not taken: name the package; {_WHERE}")
    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfig(f"'{text[:_SHOWN]}' is no requirement: {reason}") from error
    if found.url is not None:
        raise InvalidConfig(
            f"package '{found.name}' is named by a URL, which is not taken: give its version; "
            f"{_WHERE}"
        )
    return found


def _check_options(options: Sequence[str]) -> None:
    """Raises InvalidConfig."""
    wrong = [each for each in options if not _HASH.fullmatch(each)]
    if wrong:
        raise InvalidConfig(
            f"the option '{_option(wrong[0])}' is not taken; of options only --hash is"
        )


def _option(text: str) -> str:
    return re.split(r"[\s=]", text, maxsplit=1)[0][:_SHOWN]


def _unmet(requirement: Requirement, seen: set[str]) -> Iterator[Unmet]:
    """The package, and what its extras bring."""
    try:
        installed = distribution(requirement.name)
        version = installed.version
    except PackageNotFoundError:
        yield Unmet(requirement, "not installed")
        return
    try:
        is_met = requirement.specifier.contains(version, prereleases=True)
    except (InvalidVersion, TypeError):
        is_met = False
    if not is_met:
        yield Unmet(requirement, f"{version} is installed")
        return
    for extra in requirement.extras:
        place = f"{canonicalize_name(requirement.name)}[{extra}]"
        if place in seen:
            continue
        seen.add(place)
        for text in installed.requires or ():
            brought = Requirement(text)
            marker = brought.marker
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                yield from _unmet(brought, seen)


def _short(requirement: Requirement) -> str:
    """Without its marker, which holds here."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
