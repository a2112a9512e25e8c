"""How prompts begin: what requests have in common that find each other's work in a prefix cache."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_OF_PROMPT, MOST_OF_MESSAGE = 256, 4096
"""Characters: what comes behind may be what is asked this time."""


def of_prompt(prompt: str | Sequence[Any]) -> str:
    """Of a text or its tokens, or of the first of several."""
    first = prompt
    while isinstance(first, list) and first and not isinstance(first[0], int):
        first = first[0]
    return ascii(first[:MOST_OF_PROMPT])


def of_messages(messages: Sequence[Mapping[str, Any]]) -> str:
    """Of all texts up to the first message of a user: it stays as a conversation goes on."""
    texts = []
    for each in messages:
        texts.append(_text(each.get("content"))[:MOST_OF_MESSAGE])
        if each.get("role") == "user":
            break
    return ascii(texts)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (each.get("text") for each in parts if isinstance(each, Mapping))
    return "".join(each for each in texts if isinstance(each, str))
