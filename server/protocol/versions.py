"""The text of a model version, as both protocols carry it."""

from trivet.backends.api import InvalidRequest

_MAX_DIGITS = 19


def parse_version(text: str) -> int | None:
    """A version's number; None for the empty text, which means the newest ready one.

    Raises InvalidRequest for anything but a plain positive decimal of at most 19 digits.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS) or text[0] == "0":
        raise InvalidRequest(
            f"failed to get model version from specified version string '{text[:64]}': a version "
            f"is a positive decimal number of at most {_MAX_DIGITS} digits without a leading zero"
        )
    return int(text)
