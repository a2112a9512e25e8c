"""The trace extension over gRPC, and how a call becomes a part of its client's trace."""

from trivet.backends.api import InvalidRequest
from trivet.protos import grpc_service_pb2 as pb
from trivet.server.core import ServerSettings
from trivet.server.grpc.transport import Call
from trivet.server.tracing.arrival import Arrival, current_arrival
from trivet.server.tracing.setting import Change

MAX_VALUES = 8


def note_arrival(call: Call) -> None:
    """Tells the trace of the request that comes next where it came from."""
    current_arrival.set(Arrival("GRPC", call.metadata.get("traceparent")))


def answer_trace_setting(
    core: ServerSettings, request: pb.TraceSettingRequest
) -> pb.TraceSettingResponse:
    """Changes what is given and tells all. A setting without a value is given back."""
    changes: dict[str, Change] = {}
    for name, setting in request.settings.items():
        if len(setting.value) > MAX_VALUES:
            raise InvalidRequest(
                f"trace setting '{name[:64]}' has {len(setting.value)} values; at most "
                f"{MAX_VALUES} are taken"
            )
        changes[name] = list(setting.value) or None
    if changes:
        described = core.change_trace_settings(changes, request.model_name)
    else:
        described = core.trace_settings(request.model_name)
    response = pb.TraceSettingResponse()
    for name, value in described.items():
        response.settings[name].value.extend([value] if isinstance(value, str) else value)
    return response
