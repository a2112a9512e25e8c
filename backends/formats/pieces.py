"""What an output consists of, as far as it has come: text, thoughts and calls of tools. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Piece:
    """Text, thought, or a part of a call: its name comes first, then its arguments bit by bit."""

    text: str = ""
    index: int | None = None
    """Of the call, among the calls of the output; None: it is of none."""
    name: str = ""
    """On a call's first piece."""
    id: str = ""
    """On a call's first piece, where the model has given it one."""
    is_thought: bool = False


class Pieces(list[Piece]):
    """What came of one text; neighbours that belong together are one piece."""

    def add_text(self, text: str, *, is_thought: bool = False) -> None:
        """Plain text, or thought."""
        if not text:
            return
        if self and self[-1].index is None and self[-1].is_thought is is_thought:
            self[-1].text += text
        else:
            self.append(Piece(text, is_thought=is_thought))

    def add_call(self, index: int, name: str, own_id: str = "") -> None:
        """A call begins."""
        self.append(Piece("", index, name, own_id))

    def add_arguments(self, index: int, text: str) -> None:
        """More of its arguments."""
        if self and self[-1].index == index:
            self[-1].text += text
        elif text:
            self.append(Piece(text, index))
