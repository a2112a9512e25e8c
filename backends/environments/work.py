"""The programs that make an environment: how long they may take, and how they are told of."""

import os
import re
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from trivet.backends.api import LoadFailed, Making
from trivet.backends.api.config import seconds
from trivet.backends.process.chore import Chore, Ended
from trivet.backends.process.start import plain
from trivet.protos.model_config_pb2 import ModelConfig

LIMIT = "install_timeout_s"
"""The config parameter."""
_USUAL_LIMIT_S = 1800.0
_NUM_LINES = 8
_LONGEST = 400
"""Of a program's output in an error."""
_URL = re.compile(r"\w+://[^\s'\")]+")
_PATH = re.compile(r"(?<![\w/])(/[^\s/'\",:;()]+){2,}/?")


@dataclass(frozen=True, slots=True)
class Work:
    """For one model's environment."""

    model: str
    what: str
    """It is made of, as error texts begin."""
    limit_s: float = _USUAL_LIMIT_S
    """Of each program."""

    def run(self, name: str, command: Sequence[str], folder: Path, making: Making) -> Ended:
        """Runs one, without what leads to the server's packages. Raises LoadFailed where it did not
        come to its end, OSError where it could not begin."""
        # Errors are to stand behind what was printed before them.
        variables = {**plain(os.environ), "PYTHONUNBUFFERED": "1"}
        chore = Chore(command, name, self.model, folder, variables)
        ended = chore.run(self.limit_s, making.stop)
        if ended.is_stopped:
            raise LoadFailed(f"model '{self.model}' was closed while it was loading")
        if ended.is_late:
            raise LoadFailed(
                f"{self.what}: {name} took longer than {self.limit_s:g} s (model parameter {LIMIT})"
            )
        return ended

    def must_run(self, name: str, command: Sequence[str], folder: Path, making: Making) -> None:
        """The same; raises LoadFailed with its last words where it failed, too."""
        ended = self.run(name, command, folder, making)
        if ended.code != 0:
            lines = "\n".join(map(_shown, ended.lines[-_NUM_LINES:])) or f"exit code {ended.code}"
            raise LoadFailed(f"{self.what}: {name} failed; the server log has all of it:\n{lines}")


def _shown(line: str) -> str:
    """Of this machine and its network an error tells names of files alone."""
    return _PATH.sub(lambda found: PurePath(found[0]).name, _URL.sub("(URL)", line))[:_LONGEST]


def limit_of(config: ModelConfig) -> float:
    """How long a program may take, as the config says. Raises InvalidConfig."""
    return seconds(config, LIMIT, _USUAL_LIMIT_S)


def interpreter_words() -> str:
    """What an environment that is made here depends on."""
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{sys.implementation.name} {version} {sysconfig.get_platform()} {sys.base_prefix}"
