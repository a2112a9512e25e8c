"""Calls that a grammar has forced as JSON, for models whose own format is unknown or cannot hold to
a schema."""

from trivet.backends.formats.marked_json import listed
from trivet.backends.formats.pieces import Pieces
from trivet.backends.formats.reader import Reader
from trivet.backends.formats.source import Reading


class ListedCalls(Reader):
    """An output that is a list of objects with name and parameters."""

    def read(self) -> Reading[None]:
        """See Reader."""
        yield from self.attempt("", self._calls())

    def _calls(self) -> Reading[None]:
        yield from self.source.spaces()
        yield from self.source.expect("[")
        yield from listed(self)


class NamedCall:
    """An output that is the arguments of one function."""

    def __init__(self, name: str) -> None:
        self._name = name

    def push(self, text: str) -> Pieces:
        """All of it."""
        pieces = Pieces()
        if self._name:
            pieces.add_call(0, self._name)
            self._name = ""
        pieces.add_arguments(0, text)
        return pieces

    def flush(self) -> Pieces:
        """Nothing is held back."""
        return Pieces()
