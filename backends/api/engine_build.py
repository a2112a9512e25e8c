"""Backends whose models are made for one kind of device before they are served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class BuildsEngines(Protocol):
    """A backend that makes engines of ONNX models."""

    def build(self, onnx: Path, plan: Path, settings: Mapping[str, Any]) -> str:
        """Writes `plan` and the note beside it; returns what was made, in a few lines.

        Raises InvalidConfig for settings, LoadFailed for a model that cannot be built.
        """
