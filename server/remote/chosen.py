"""Which models of a repository elsewhere are brought here: all, or those that somebody wants."""

from collections.abc import Iterable

from trivet.server.remote.pieces import ROOT, Pieces, model_of

Names = frozenset[str] | None
"""Of models; None: all."""


class Chosen:
    """Owned by the event loop. Threads that follow sources read `names`, which changes at once."""

    def __init__(self, names: Iterable[str] | None = None) -> None:
        """None: all, for ever."""
        self.names: Names = None if names is None else frozenset(names)

    def add(self, names: Iterable[str]) -> None:
        """They are wanted from the next round on."""
        if self.names is not None:
            self.names |= frozenset(names)

    def discard(self, names: Iterable[str]) -> None:
        """They are not wanted any more."""
        if self.names is not None:
            self.names -= frozenset(names)


def taken(pieces: Pieces, names: Names, whole: str) -> Pieces:
    """What of the pieces is of these models. `whole`: what a repository is called that is one."""
    if names is None:
        return pieces
    return {
        place: piece
        for place, piece in pieces.items()
        if (whole if place == ROOT else model_of(place)) in names
        or (piece.is_file and _is_file_of(place, names))
    }


def _is_file_of(place: str, names: frozenset[str]) -> bool:
    """Whether a lone file may be one of a model's, or lie beside it: fraud.onnx, fraud.onnx_data,
    fraud-00001-of-00003.gguf. One too many does no harm."""
    return any(place.startswith((f"{name}.", f"{name}-")) for name in names)
