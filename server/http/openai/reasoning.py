"""What every API of chats asks of a choice's text: thoughts, answer and calls, told apart."""

from typing import Any, Protocol

from trivet.backends.api import Finish


class ChoiceParts(Protocol):
    """One choice's text, taken apart as it comes."""

    def deltas(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """What a stream's `delta` says of this text."""

    def finish(self, finish: Finish | None) -> dict[str, Any]:
        """finish_reason and stop_reason."""
