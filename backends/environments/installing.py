"""Installs what a requirements.txt asks for into an environment of the model's, by uv or pip."""

import hashlib
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from trivet.backends.api import Environment, LoadFailed, Making
from trivet.backends.environments.layout import Layout
from trivet.backends.environments.requirements import FILE
from trivet.backends.environments.work import Work, interpreter_words

_FOLDER = "env"


@dataclass(frozen=True, slots=True)
class InstallRecipe:
    """A virtual environment of the server's Python, with packages."""

    text: str
    """Of the requirements."""
    work: Work

    @property
    def key(self) -> str:
        """See Recipe."""
        content = f"{interpreter_words()}\n{self.text}"
        return f"packages-{hashlib.sha256(content.encode()).hexdigest()[:40]}"

    @property
    def model(self) -> str:
        """See Recipe."""
        return self.work.model

    def make(self, folder: Path, making: Making) -> None:
        """See Recipe."""
        place, listed = folder / _FOLDER, folder / FILE
        listed.write_text(self.text, encoding="utf-8")
        installer = self._installer(place)
        venv = (sys.executable, "-P", "-m", "venv", "--without-pip", str(place))
        self.work.must_run("venv", venv, folder, making)
        command = (*installer, "--requirement", str(listed))
        self.work.must_run("install", command, folder, making)

    def made(self, folder: Path) -> Environment:
        """See Recipe."""
        return Layout.of(folder / _FOLDER, self.work.what).environment(self.work.what)

    def _installer(self, place: Path) -> tuple[str, ...]:
        """Raises LoadFailed where there is none."""
        python = str(place / "bin" / "python")
        uv = shutil.which("uv")
        if uv is not None:
            return (uv, "pip", "install", "--python", python, "--color", "never", "--no-progress")
        if find_spec("pip") is not None:
            pip = (sys.executable, "-P", "-m", "pip", "--python", python, "install")
            return (*pip, "--no-input", "--no-color", "--progress-bar", "off")
        raise LoadFailed(
            f"{self.work.what} cannot be installed: neither uv nor pip is installed beside the "
            "server; pip install uv"
        )
