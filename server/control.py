"""Model control by name: what clients and models may ask, in explicit mode only."""

import asyncio
from pathlib import Path

from trivet.backends.api import InvalidRequest, Unavailable
from trivet.server.models.lifecycle import Lifecycle
from trivet.server.repository.scan import scan
from trivet.server.settings import Settings

NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"


class RepositoryControl:
    """Loads and unloads models of the repositories by name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def attach(self, lifecycle: Lifecycle) -> None:
        """Called once, before anything is asked: the models that it loads may ask for control."""
        self._lifecycle = lifecycle

    async def load(self, name: str, config_json: str | None) -> None:
        """Loads what lies in the repository under that name now. Raises a ServingError."""
        check_model_name(name)
        self._require_explicit()
        snapshot = await asyncio.to_thread(scan, self._settings.model_repository)
        folder = snapshot.models.get(name)
        if folder is None:
            problem = snapshot.problems.get(name)
            if problem:
                self._lifecycle.note_problem(name, problem)
            raise InvalidRequest(
                f"failed to load '{name}', failed to poll from model repository"
                + (f": {problem}" if problem else "")
            )
        await self._lifecycle.load(folder, config_json)

    async def unload(self, name: str, *, unload_dependents: bool) -> None:  # noqa: ARG002
        """Returns when the model accepts no more requests. Raises a ServingError."""
        check_model_name(name)
        self._require_explicit()
        await self._lifecycle.unload(name)

    def _require_explicit(self) -> None:
        if self._settings.model_control_mode != "explicit":
            raise Unavailable(NOT_EXPLICIT)


def check_model_name(name: str) -> None:
    """Raises InvalidRequest for a name that cannot be a model folder's."""
    if not name.strip():
        raise InvalidRequest("Model name cannot be empty. Please enter a valid name to deploy.")
    parts = Path(name.strip()).parts
    if "/" in name or "\\" in name or "\0" in name or ".." in parts:
        raise InvalidRequest("model name must not contain path traversal characters")
