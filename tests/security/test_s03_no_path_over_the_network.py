"""S3: nobody sets a path over the network. Settings of logs and traces name no files; what the
server writes is where its options say."""

import json
from pathlib import Path

import pytest
from fault_room import Room

from trivet.protos import grpc_service_pb2 as pb

pytestmark = pytest.mark.usefixtures("unharmed")
FILES = ["trace_file", "log_file", "triton,file", "file", "opentelemetry,url"]


@pytest.mark.more_of("R23")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["/v2/trace/setting", "/v2/models/good/trace/setting"])
def test_trace_settings_take_no_files(room: Room, tmp_path: Path, name: str, target: str) -> None:
    path = tmp_path / "written"
    answer = room.post(target, json.dumps({name: str(path)}).encode())
    assert answer.status in (400, 501)
    assert room.post(target, json.dumps({name: [str(path)]}).encode()).status in (400, 501)
    room.assert_unharmed()
    assert not path.exists()


@pytest.mark.parametrize("name", FILES)
def test_trace_settings_over_grpc_take_no_files(room: Room, tmp_path: Path, name: str) -> None:
    request = pb.TraceSettingRequest()
    request.settings[name].value.append(str(tmp_path / "written"))
    code, _ = room.refusal("TraceSetting", request.SerializeToString())
    assert code in ("UNIMPLEMENTED", "INVALID_ARGUMENT")
    assert not (tmp_path / "written").exists()


def test_log_settings_are_not_to_be_changed(room: Room, tmp_path: Path) -> None:
    request = pb.LogSettingsRequest()
    request.settings["log_file"].string_param = str(tmp_path / "written")
    code, _ = room.refusal("LogSettings", request.SerializeToString())
    assert code in ("UNIMPLEMENTED", "INVALID_ARGUMENT")
    body = json.dumps({"log_file": str(tmp_path / "written")}).encode()
    assert room.post("/v2/logging", body).status in (400, 501)
    assert not (tmp_path / "written").exists()
    assert not any("written" in line for line in room.server.output)
