"""What a folder with an environment is made of, looked at without running it."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import Environment, InvalidConfig
from trivet.backends.process.start import SHARED

_LIBRARY = re.compile(r"python3\.(\d+)")
_VENV = "pyvenv.cfg"
_LEAST = (3, 11)
"""The Python that our own modules need."""
_FORMS = "an environment that conda-pack or venv-pack has packed, or the folder of one"


@dataclass(frozen=True, slots=True)
class Layout:
    """An environment's folder and its Python."""

    folder: Path
    version: tuple[int, int]
    """Of Python."""

    @classmethod
    def of(cls, place: Path, what: str) -> "Layout":
        """Of a folder, or of the only folder in it. `what`: it is, for error texts. Raises
        InvalidConfig."""
        folders = [place]
        if not (place / "bin").is_dir():
            folders = [each for each in place.glob("*") if each.is_dir()]
        for folder in folders if len(folders) == 1 else ():
            minors = _minors(folder)
            if len(minors) == 1 and any(map(os.path.lexists, _interpreters(folder))):
                return cls(folder, (3, minors[0]))
        raise InvalidConfig(
            f"{what} holds no environment, with bin/python and one lib/python3.N; give {_FORMS}"
        )

    @property
    def is_venv(self) -> bool:
        """Whether its interpreter is another one's."""
        return (self.folder / _VENV).is_file()

    def environment(self, what: str) -> Environment:
        """Ready to be used. Raises InvalidConfig where our modules cannot run in it."""
        self._check_version(what)
        python = next((each for each in _interpreters(self.folder) if each.is_file()), None)
        if python is None:
            link = _interpreters(self.folder)[0]
            raise InvalidConfig(
                f"{what} is of Python {_text(self.version)}, whose interpreter is not on this "
                f"machine: 'bin/{link.name}' is a link to nothing. Make it here, or pack a conda "
                "environment, which has its interpreter in it"
            )
        if not os.access(python, os.X_OK):
            raise InvalidConfig(f"{what}: its 'bin/{python.name}' may not be executed")
        return Environment(self.folder, python, has_libraries=not self.is_venv)

    def settle(self, what: str) -> None:
        """Gives a virtual environment that comes from elsewhere the server's own interpreter.
        Raises InvalidConfig where that is of another version."""
        if not self.is_venv:
            return
        if self.version != sys.version_info[:2]:
            raise InvalidConfig(
                f"{what} is a virtual environment of Python {_text(self.version)}, which has no "
                f"interpreter in it, and the server's is {_text(sys.version_info[:2])}: make it "
                f"with Python {_text(sys.version_info[:2])}, or pack a conda environment, which "
                "has its interpreter in it"
            )
        home = Path(sys.base_prefix) / "bin"
        base = next(each for each in (home / self._name, home / "python3") if each.is_file())
        config = self.folder / _VENV
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if line.partition("=")[0].strip() != "home"]
        for path in (*_interpreters(self.folder), self.folder / "bin" / self._name):
            path.unlink(missing_ok=True)
            path.symlink_to(base)
        # It may be a link to what has just become one that leads out.
        config.unlink()
        config.write_text("\n".join((f"home = {home}", *kept, "")), encoding="utf-8")

    @property
    def _name(self) -> str:
        return f"python{_text(self.version)}"

    def _check_version(self, what: str) -> None:
        version, servers = _text(self.version), _text(sys.version_info[:2])
        if self.version < _LEAST:
            raise InvalidConfig(
                f"{what} is of Python {version}; a model's process needs Python "
                f"{_text(_LEAST)} or newer, and the server's is {servers}: make it with that one"
            )
        missing = [name for name in SHARED if not self._has(name)]
        if self.version != sys.version_info[:2] and missing:
            listed = ", ".join(missing)
            packages = " ".join(name.replace("_", "-") for name in missing)
            raise InvalidConfig(
                f"{what} is of Python {version} and has no {listed}, and those of the server are "
                f"compiled for Python {servers}: pip install {packages} in it before it is packed, "
                f"or make it with Python {servers}"
            )

    def _has(self, package: str) -> bool:
        return (self.folder / "lib" / self._name / "site-packages" / package).is_dir()


def _interpreters(folder: Path) -> tuple[Path, ...]:
    return (folder / "bin" / "python", folder / "bin" / "python3")


def _minors(folder: Path) -> list[int]:
    """Of the Pythons that it has libraries for. Conda has a link from 3.1 to 3.11."""
    library = folder / "lib"
    found = [_LIBRARY.fullmatch(path.name) for path in library.glob("python3.*") if _is_own(path)]
    return [int(each[1]) for each in found if each is not None]


def _is_own(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
