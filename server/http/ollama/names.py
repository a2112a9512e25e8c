"""Models by the names that clients of Ollama call them, and times as they read them."""

from datetime import UTC, datetime

from trivet.server.core import Core

_USUAL_TAG = ":latest"


def own_name(core: Core, name: str) -> str:
    """A name without the tag that clients put behind each that has none."""
    if not name.endswith(_USUAL_TAG) or name in core.generators():
        return name
    return name.removesuffix(_USUAL_TAG)


def iso_time(since_1970_s: float) -> str:
    """By RFC 3339, in UTC."""
    return datetime.fromtimestamp(since_1970_s, UTC).isoformat().replace("+00:00", "Z")
