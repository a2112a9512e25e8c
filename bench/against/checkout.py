"""Another commit's files in a folder of their own, with its native parts compiled."""

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.processes import HERE

COMPILE = """
import pathlib, hatch_build as build
parts = [part for part in vars(build).values() if isinstance(part, build.Part)]
missing = [part.made for part in parts if not build.compile_part(pathlib.Path(), part)]
if missing: print("without", *missing)
"""
"""Run in the checkout, so that a commit's parts are compiled as it says itself."""


class CannotCompare(Exception):
    """What was asked for on the command line is not there."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two commits: where `trivet` is imported from. The bench's own modules always come
    from `HERE`."""

    name: str
    root: Path


@contextmanager
def both_sides(commit: str) -> Iterator[tuple[Side, Side]]:
    """The old side, in a folder that is gone afterwards, and the new one: this checkout with its
    changes. Raises CannotCompare where the commit is not known."""
    with tempfile.TemporaryDirectory(prefix="trivet-bench-") as name:
        folder = Path(name)
        _unpack(_resolve(commit), folder)
        subprocess.run([sys.executable, "-c", COMPILE], cwd=folder, check=True)
        yield Side("old", folder), Side("new", HERE)


def _resolve(commit: str) -> str:
    command = ["git", "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotCompare(f"{commit!r} is no commit of the repository at {HERE}")
    return done.stdout.strip()


def _unpack(commit: str, folder: Path) -> None:
    """Without the commit's own bench, which would hide this one."""
    command = ["git", "archive", "--format=tar", commit, ".", ":(exclude)bench"]
    archive = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
