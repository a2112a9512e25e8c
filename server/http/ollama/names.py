"""Models by the names that clients of Ollama call them."""

from trivet.server.core import Core

_USUAL_TAG = ":latest"


def own_name(core: Core, name: str) -> str:
    """A name without the tag that clients put behind each that has none."""
    if not name.endswith(_USUAL_TAG) or name in core.generators():
        return name
    return name.removesuffix(_USUAL_TAG)
