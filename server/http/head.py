"""What the head of a request says that is answered by callbacks."""

from aiohttp.http import RawRequestMessage
from multidict import MultiMapping, istr

from trivet.backends.api import InvalidRequest
from trivet.backends.api.value import value
from trivet.server.models.traffic import given_in

HEADER_LENGTH = istr("Inference-Header-Content-Length")


@value
class Head:
    """Everything that its bytes decide: requests of the same head share it."""

    message: RawRequestMessage
    model: str
    version: int | str | None
    request_id: str
    """The client's own name for its request; empty: it gave none."""
    header_length: int | None
    """How many bytes of the body are its JSON part; None: all."""
    accepted_codings: str | None
    body_bytes: int
    should_close: bool
    """Whether the client wants no other answer on its connection."""

    def given(self, source: str) -> str | None:
        """See Client."""
        return given_in(self.message.headers, source)


def header_length_of(headers: MultiMapping[str]) -> int | None:
    """How many bytes of the body are its JSON part; None: all. Raises InvalidRequest."""
    values = headers.getall(HEADER_LENGTH, ())
    if not values:
        return None
    given = values[0]
    if len(values) > 1 or not (given.isascii() and given.isdigit() and len(given) <= 19):
        raise InvalidRequest(
            f"{HEADER_LENGTH} must be one decimal number, the byte length of the JSON part, got "
            f"'{', '.join(values)[:64]}'"
        )
    return int(given)
