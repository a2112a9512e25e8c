"""What the servers answered while the running test asked them.

The clients of the tests write it down, whatever a test makes of an answer; docs/bad-input.md is
compared with it.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One of them; what it does not have is empty."""

    status: int = 0
    """Of HTTP."""
    code: str = ""
    """Of gRPC, or why a stream or a connection was ended."""
    text: str = ""
    """Headers and body, or the message."""
    is_closed: bool = False
    """The server closed the connection behind it."""


HEARD: list[Answer] = []
"""Of the test that runs; emptied before the next."""


def hear(
    status: int = 0,
    *,
    code: str = "",
    text: bytes | str = "",
    headers: object = None,
    is_closed: bool = False,
) -> None:
    """Writes an answer down."""
    told = text.decode("latin-1") if isinstance(text, bytes) else text
    if headers is not None:
        told = f"{headers}\n{told}"
    HEARD.append(Answer(status, code, told, is_closed))


def hear_bytes(received: bytes, *, is_closed: bool = False) -> None:
    """Writes down what came over a connection of HTTP/1."""
    for answer in re.split(rb"(?=HTTP/1\.1 \d\d\d )", received):
        status = re.match(rb"HTTP/1\.1 (\d\d\d) ", answer)
        hear(int(status[1]) if status else 0, text=answer)
    hear(is_closed=is_closed)


def hear_triton(status: str, text: str) -> None:
    """Writes down an error of Triton's clients: "400", or "StatusCode.INVALID_ARGUMENT"."""
    if status.isdigit():
        hear(int(status), text=text)
    else:
        hear(code=status.removeprefix("StatusCode."), text=text)
