"""Images in conversations, on their way from a front room to the model that reads them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, eq=False)
class Image:
    """An image that a client sent as text. What is not its own is written by whoever reads it, in
    a thread, so that no front room decodes anything."""

    where: str
    """The field of the request, for error texts."""
    base64: str
    """Of the file's bytes; not looked at yet."""
    file: bytes = b""
    """The bytes: of an image that was looked at and can be decoded."""
    digest: bytes = b""
    """Of the bytes: equal images have the same."""
    num_tokens: int = 0
    """Of a prompt, that stand for it."""


def images_of(messages: Sequence[Mapping[str, Any]]) -> list[Image]:
    """Those in a conversation, in order. A content with images is a list of parts, of texts and of
    {"type": "image", "image": Image}."""
    return [
        part["image"]
        for message in messages
        if isinstance(content := message.get("content"), list)
        for part in content
        if isinstance(part.get("image"), Image)
    ]
