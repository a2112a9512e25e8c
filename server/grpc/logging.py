"""The logging extension over gRPC."""

from trivet.protos import grpc_service_pb2 as pb
from trivet.server.core import ServerSettings


def answer_log_settings(
    core: ServerSettings, request: pb.LogSettingsRequest
) -> pb.LogSettingsResponse:
    """Changes what is given and tells all."""
    changes = {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in request.settings.items()
    }
    described = core.change_log_settings(changes) if changes else core.log_settings()
    response = pb.LogSettingsResponse()
    for name, value in described.items():
        entry = response.settings[name]
        if isinstance(value, bool):
            entry.bool_param = value
        elif isinstance(value, int):
            entry.uint32_param = value
        else:
            entry.string_param = value
    return response
