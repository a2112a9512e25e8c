"""What user code says beside tensors: texts, numbers and parameters that can be sent.

Errors are TritonModelExceptions, with what was given where.
"""

from collections.abc import Mapping
from math import isfinite
from numbers import Integral
from types import MappingProxyType

from trivet.backends.api import Parameters
from trivet.backends.python.model_api.errors import TritonModelException

MAX_PARAMETER_BYTES = 1 << 20
"""Of all names and texts of one response or request: they travel beside tensors, not like them."""
NO_PARAMETERS: Parameters = MappingProxyType({})


def text_of(given: object, what: str) -> str:
    """A text that UTF-8 has characters for."""
    if not isinstance(given, str):
        raise TritonModelException(f"{what} must be a str, not {type(given).__name__}")
    return text_in(given, what)


def text_in(given: str, what: str) -> str:
    """The same where it is known to be a str."""
    if not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            raise TritonModelException(
                f"{what} has {character!a} at position {error.start}, which UTF-8 cannot encode: "
                "half of a surrogate pair, as json.loads makes it of a text that was cut in two"
            ) from None
    return given


def number_of(given: object, what: str, low: int, high: int) -> int:
    """A whole number of a range, both ends included; numpy's are taken, too."""
    shown = type(given).__name__
    if isinstance(given, Integral) and not isinstance(given, bool):
        number = int(given)
        if low <= number <= high:
            return number
        shown = f"one of {number.bit_length()} bits" if number.bit_length() > 64 else str(number)
    raise TritonModelException(f"{what} must be an int from {low} to {high}, not {shown}")


def parameters_of(given: object, what: str) -> Parameters:
    """Parameters with values of the plain types that a response has fields for."""
    if not given:
        return NO_PARAMETERS
    if not isinstance(given, Mapping):
        raise TritonModelException(f"{what} must be a dict, not {type(given).__name__}")
    checked: dict[str, str | int | float | bool] = {}
    size_bytes = 0
    for name, value in given.items():
        key = str.__str__(text_of(name, f"a name in {what}"))
        checked[key] = made = _value_of(value, f"{what}['{key}']")
        size_bytes += len(key.encode()) + (len(made.encode()) if isinstance(made, str) else 0)
    if size_bytes > MAX_PARAMETER_BYTES:
        raise TritonModelException(
            f"{what} have {size_bytes} bytes of text; the limit is {MAX_PARAMETER_BYTES}: use an "
            "output tensor for as much"
        )
    return checked


def _value_of(given: object, what: str) -> str | int | float | bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str):
        return str.__str__(text_in(given, what))
    if isinstance(given, Integral):
        return number_of(given, what, -(2**63), 2**63 - 1)
    if isinstance(given, float):
        if not isfinite(given):
            raise TritonModelException(f"{what} must be a finite number, not {float(given)}")
        return float(given)
    raise TritonModelException(
        f"{what} must be a str, int, float or bool, not {type(given).__name__}"
    )
