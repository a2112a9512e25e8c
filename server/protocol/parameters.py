"""Request parameters that mean something to the server; the rest goes to the model. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.backends.api import InvalidRequest, Parameters, ParameterValue
from trivet.protos import grpc_service_pb2 as pb

EMPTY_FINAL = "triton_enable_empty_final_response"
RESERVED_PREFIX = "triton_"
MAX_SEQUENCE_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Options:
    """The parameters of a request, sorted out."""

    priority: int = 0
    timeout_us: int = 0
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    wants_empty_final: bool = False
    parameters: Parameters = field(default_factory=dict)


NO_OPTIONS = Options()


def parse_parameters(
    parameters: Mapping[str, ParameterValue], *, allow_empty_final: bool
) -> Options:
    """Checks and sorts request parameters. Raises InvalidRequest naming the parameter."""
    if not parameters:
        return NO_OPTIONS
    rest = dict(parameters)
    empty_final = _boolean(rest, EMPTY_FINAL) if allow_empty_final else False
    options = Options(
        _non_negative(rest, "priority"),
        _non_negative(rest, "timeout"),
        _sequence_id(rest),
        _boolean(rest, "sequence_start"),
        _boolean(rest, "sequence_end"),
        empty_final,
        rest,
    )
    for name in rest:
        if name.startswith(RESERVED_PREFIX):
            raise InvalidRequest(
                f"parameter '{name}' is not allowed: parameter keys starting with "
                f"'{RESERVED_PREFIX}' are reserved for Triton usage"
            )
        if name == "headers":
            raise InvalidRequest("parameter 'headers' is reserved and cannot be set by a client")
    return options


def set_parameter(parameter: pb.InferParameter, value: ParameterValue) -> None:
    """Sets the field that fits the value's type."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value


def _non_negative(rest: dict[str, ParameterValue], name: str) -> int:
    value = rest.pop(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidRequest(
            f"parameter '{name}' must be an integer from 0 to {2**63 - 1}, got {_shown(value)}"
        )
    return value


def _boolean(rest: dict[str, ParameterValue], name: str) -> bool:
    value = rest.pop(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"parameter '{name}' must be a boolean, got {_shown(value)}")
    return value


def _sequence_id(rest: dict[str, ParameterValue]) -> int | str:
    value = rest.pop("sequence_id", 0)
    if isinstance(value, bool | float):
        raise InvalidRequest(
            f"parameter 'sequence_id' must be an integer or a string, got {_shown(value)}"
        )
    if isinstance(value, str) and len(value) > MAX_SEQUENCE_ID_LENGTH:
        raise InvalidRequest(
            f"parameter 'sequence_id' has {len(value)} characters; at most "
            f"{MAX_SEQUENCE_ID_LENGTH} are allowed"
        )
    if isinstance(value, int) and not 0 <= value < 2**64:
        raise InvalidRequest(
            f"parameter 'sequence_id' must be from 0 to {2**64 - 1}, got {_shown(value)}"
        )
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
