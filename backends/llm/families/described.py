"""What a file says of its model."""

from collections.abc import Mapping
from typing import Any

from trivet.backends.api import LoadFailed


class Described(dict[str, Any]):
    """A config.json, or GGUF metadata. Raises LoadFailed for what it should say and does not."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        super().__init__(values)
        self._source = source

    def __missing__(self, name: str) -> Any:
        raise LoadFailed(f"{self._source} has no '{name}', which the model needs")
