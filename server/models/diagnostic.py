"""A finding of `trivet repo validate`: what, where, and how the place is found in a config."""

import re
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import ServingError
from trivet.server.repository.config import parse_config

_POSITION = re.compile(r"^(?P<file>\S+?):(?P<line>\d+):(?P<column>\d+): (?P<what>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding."""

    severity: str
    """error: the model will not serve; warning: it will, but perhaps not as meant."""
    code: str
    path: str
    message: str
    fix: str = ""
    line: int = 0
    """From 1; 0 where the finding is about a whole file or folder."""
    column: int = 0

    @property
    def place(self) -> str:
        """path:line:column, as far as known."""
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


def positioned(message: str, path: str) -> Diagnostic:
    found = _POSITION.match(message)
    if found is None:
        return Diagnostic("error", "config-unreadable", path, message)
    code = "config-unknown-field" if "unknown field" in found["what"] else "config-syntax"
    return Diagnostic(
        "error",
        code,
        found["file"],
        found["what"],
        line=int(found["line"]),
        column=int(found["column"]),
    )


def line_of(path: Path, fault: str) -> int:
    """The line of a config that a fault is most likely about: the first one that names its tensor
    or its field; 1 when none does."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        parse_config("\n".join(lines), path.name)
    except (OSError, ServingError):
        return 0
    words = re.findall(r"'([^']+)'", fault) + re.findall(r"\b[a-z]+_[a-z_]+\b", fault)
    for word in words:
        for number, line in enumerate(lines, 1):
            if word in line:
                return number
    return 1 if lines else 0


_CODES = (
    ("reshape", "reshape"),
    ("label_filename", "label-path"),
    ("default_model_filename", "model-path"),
    ("priority", "priority"),
    ("preserve_ordering", "ordering"),
    ("preferred size", "preferred-size"),
    ("model_warmup", "warmup"),
    ("instance_group", "instance-group"),
    ("model_repository_agents", "repository-agents"),
    ("version_policy", "version-policy"),
    ("max_batch_size", "max-batch-size"),
    ("twice", "tensor-twice"),
    ("no name", "tensor-name"),
    ("data_type", "data-type"),
    ("dimension", "dims"),
    ("dims", "dims"),
)


def code_of(fault: str) -> str:
    return next((code for word, code in _CODES if word in fault), "config")
