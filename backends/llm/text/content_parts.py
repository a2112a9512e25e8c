"""Contents of messages as lists of parts: templates with a place for images read them so."""

from collections.abc import Mapping
from typing import Any

from trivet.backends.api import Messages

ONE_IMAGE: Mapping[str, Any] = {
    "role": "user",
    "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}],
}
"""To try a template with."""


def with_parts(messages: Messages) -> Messages:
    """A conversation whose contents are all such lists, with no more of an image than that it is
    there."""
    return [{**message, "content": _parts(message.get("content"))} for message in messages]


def _parts(content: Any) -> Any:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return content
    return [{"type": "image"} if part["type"] == "image" else part for part in content]


def last_text(content: Any) -> str:
    """What a message ends with."""
    if isinstance(content, list):
        return str(content[-1].get("text", "")) if content else ""
    return str(content or "")
