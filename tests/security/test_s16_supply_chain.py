"""S16: what trivet is made of. Every package, and every package of theirs, is pinned to a version;
they come from one index; what is generated or copied in is in the repository and compared."""

import importlib.metadata
import re
import tomllib

from house_rules import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = ROOT / "constraints.txt"
# Whose versions follow from their parents' or from the platform, and no one else's.
NOT_PINNED = {"pip", "setuptools", "wheel"}


def pinned() -> dict[str, str]:
    """Name and version of each line."""
    lines = [line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines()]
    found = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.+!]+)", line) for line in lines if line]
    assert all(found), "every line is NAME==VERSION"
    return {canonicalize_name(each[1]): each[2] for each in found if each is not None}


def needed() -> set[str]:
    """All that `pip install trivet[dev]` brings here, as the installed packages say."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    waiting += [Requirement("trivet[dev]")]
    seen: set[tuple[str, str]] = set()
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *sorted(requirement.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                told = importlib.metadata.requires(requirement.name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # for another platform or Python
            if name != "trivet":
                found.add(name)
            for text in told:
                below = Requirement(text)
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    waiting.append(below)
    return found


def test_every_package_is_pinned() -> None:
    names = needed()
    assert len(names) > 50
    assert names - pinned().keys() - NOT_PINNED == set()


def test_what_is_tested_is_what_is_pinned() -> None:
    versions = pinned()
    wrong = {}
    for name in needed() & versions.keys():
        have = importlib.metadata.version(name).partition("+")[0]
        if have != versions[name]:
            wrong[name] = (have, versions[name])
    assert wrong == {}


OPTIONS = ["--extra-index-url", "--index-url", "--find-links", "--trusted-host"]
CHOSEN = {("Dockerfile", "--index-url")}
"""By whoever builds an image: PyTorch's own index, for torch alone."""


def test_no_file_names_another_index() -> None:
    """A second index is where a package of the same name may come from."""
    files = [ROOT / "Makefile", CONSTRAINTS, ROOT / "pyproject.toml", *(ROOT / "docker").glob("*")]
    files += (ROOT / "docs").glob("*.md")
    found = {
        (path.name, option)
        for path in files
        for option in OPTIONS
        if path.is_file() and option in path.read_text()
    }
    assert found <= CHOSEN


def test_no_requirement_is_a_url() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    wanted = [*project["dependencies"], *extras]
    assert [text for text in wanted if "@" in text or "://" in text] == []
