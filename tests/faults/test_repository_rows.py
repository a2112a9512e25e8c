"""Rows R: wrong models, wrong names and wrong commands to the model repository, on a real server.

Every wrong model is asked for by name under explicit control, where the answer says what is wrong
and the index goes on saying it; and all of them at once are dropped into a watched repository.
R10 and R11 are in the language models' tests, R12 in those of the ONNX backend, R16 and R22 in
those of ensembles, R24 in those of devices; R13's 100,000 files are in the tests of the scan.
"""

import base64
import json
import os
import shutil
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fault_models import write_model
from fault_room import LEAKS, MIB, Room, good_body, read
from row_marks import by_row, shows
from serving import RunningServer, adder_bytes, write_adder

from trivet.protos import grpc_service_pb2 as pb

MAX_GROWTH_BYTES = 512 * MIB
"""ONNX Runtime and PyTorch are imported on the way and stay."""
TENSORS = (
    'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
    'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'
)
IDENTITY = 'backend: "identity"\n' + TENSORS
TORCH = 'backend: "pytorch"\n' + TENSORS
PYTHON = 'backend: "python"\n' + TENSORS
LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = "<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>"
ONNX = adder_bytes(1)


def canary(path: Path) -> bytes:
    """A pickle that makes this file when someone loads it."""
    return b"cposix\nmkdir\n(V%b\ntR." % str(path).encode()


@dataclass(frozen=True)
class Wrong:
    """A model folder that must not load, and what the reason has to say."""

    id: str
    text: str
    config: str | bytes | None = IDENTITY
    files: dict[str, str | bytes] = field(default_factory=dict)
    """By path in the folder; version 1 is there in any case, if empty."""
    make: Callable[[Path], object] = lambda folder: folder
    """What else has to be done to the folder."""

    @property
    def name(self) -> str:
        return "bad-" + "".join(c if c.isalnum() else "-" for c in self.id)

    def __str__(self) -> str:
        return self.id

    def write(self, repository: Path) -> None:
        """Puts the folder into the repository at once, by a rename."""
        folder = repository.parent / f"{repository.name}-{self.name}"
        (folder / "1").mkdir(parents=True)
        files = self.files if self.config is None else {"config.pbtxt": self.config} | self.files
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        self.make(folder)
        folder.rename(repository / self.name)


def config(row: str, text: str, pbtxt: str | bytes) -> Wrong:
    return Wrong(f"R14 {row}", text, pbtxt)


def tensor(dims: str = "4", datatype: str = "TYPE_FP32", more: str = "") -> str:
    """An identity config whose input is not as it should be."""
    wrong = f'input [ {{ name: "INPUT0" data_type: {datatype} dims: [ {dims} ] {more} }} ]\n'
    return 'backend: "identity"\n' + wrong + TENSORS.partition("\n")[2]


def onnx(row: str, text: str, content: str | bytes) -> Wrong:
    return Wrong(f"R08 {row}", text, None, {"1/model.onnx": content})


def python(row: str, text: str, source: str) -> Wrong:
    return Wrong(f"python {row}", text, PYTHON, {"1/model.py": source})


def link(target: str, name: str) -> Callable[[Path], None]:
    """Makes a symbolic link of this name."""
    return lambda folder: (folder / name).symlink_to(target)


def make_socket(folder: Path) -> None:
    here = Path.cwd()
    # A socket's address has 108 bytes at most.
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("labels.txt")
    finally:
        os.chdir(here)


def write_pickle(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "1" / name).write_bytes(canary(folder.parent / "models" / "canary"))

    return write


CONFIGS = [
    config("syntax", "config.pbtxt:1:", IDENTITY.replace('"identity"', "identity")),
    config("half a file", "config.pbtxt:", IDENTITY[:60]),
    config("unknown field", "did you mean 'max_batch_size'", "max_batchsize: 4\n" + IDENTITY),
    config("10 MB", "at most 1048576 are read", "#" * 10_000_000),
    config("dim 0", "dimension 0; dimensions are positive", tensor("0")),
    config("dim -2", "dimension -2; dimensions are positive", tensor("-2")),
    config("dim 2^63", "config.pbtxt:2:", tensor("9223372036854775808")),
    config("no datatype", "data_type", tensor(datatype="TYPE_INVALID")),
    config("bad enum", "config.pbtxt:2:", tensor(datatype="TYPE_FP33")),
    config("reshape", "of another size than dims", tensor(more="reshape { shape: [ 5 ] }")),
    config("batch -1", "max_batch_size must be 0 or more, got -1",
           "max_batch_size: -1\n" + IDENTITY),
    config("batch 2^31", "config.pbtxt:1:", "max_batch_size: 2147483648\n" + IDENTITY),
    config("count 10^9", "at most 1024 are allowed",
           "instance_group { count: 1000000000 }" + IDENTITY),
    config("count -1", "it must be 1 or more", "instance_group { count: -1 }" + IDENTITY),
    config("name", "name is 'other' but the model's folder is", 'name: "other"\n' + IDENTITY),
    config("not UTF-8", "not UTF-8 text (byte 1)", b"#\xff\n" + IDENTITY.encode()),
    config("NUL", "config.pbtxt:", IDENTITY + "\0"),
    config("unknown backend", "unknown backend 'warp'", IDENTITY.replace("identity", "warp")),
    config("module as backend", "unknown backend 'os'", IDENTITY.replace("identity", "os")),
    config("path as backend", "unknown backend '../os'", IDENTITY.replace("identity", "../os")),
    config("platform", "unknown platform 'caffe'", 'platform: "caffe"\n' + TENSORS),
    config("input twice", "is configured twice", IDENTITY + TENSORS),
    config("no version", "no version is available",
           "version_policy { specific { versions: 7 } }" + IDENTITY),
    config("preferred size", "preferred size must be positive and <= max_batch_size",
           "max_batch_size: 4\ndynamic_batching { preferred_batch_size: 99 }\n" + IDENTITY),
    Wrong("R14 a folder", "cannot be read", None, make=lambda f: (f / "config.pbtxt").mkdir()),
    Wrong("R15 labels", "must be a path inside the model's folder", IDENTITY.replace(
        'name: "OUTPUT0"', 'name: "OUTPUT0" label_filename: "../../etc/passwd"')),
    Wrong("R15 file", "must be a path inside the version folder",
          'default_model_filename: "/etc/passwd"\n' + IDENTITY),
    Wrong("R15 file above", "must be a path inside the version folder",
          'default_model_filename: "../../good/config.pbtxt"\n' + IDENTITY),
    Wrong("R15 environment", "EXECUTION_ENV_PATH", PYTHON +
          'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/etc/passwd" } }',
          {"1/model.py": "class TritonPythonModel: pass"}),
]  # fmt: skip

FILES = [
    onnx("zero bytes", "the file is empty", b""),
    onnx("truncated", "not an ONNX model", ONNX[: len(ONNX) // 2]),
    onnx("zeros", "not an ONNX model", bytes(1000)),
    onnx("error page", "HTML", PAGE),
    onnx("LFS pointer", "Git LFS pointer", LFS),
    onnx("pickle", "not an ONNX model", canary(Path("/nowhere"))),
    Wrong("R08 no file", "no file 'model.onnx'", 'backend: "onnxruntime"\n'),
    Wrong("R08 nothing says what it is", "no config names its backend", TENSORS),
    Wrong("R09 pickle as .pt", "run code", TORCH, make=write_pickle("model.pt")),
    Wrong("R09 pickle as .pt2", "run code", TORCH, make=write_pickle("model.pt2")),
    Wrong("R13 file link", "points outside the model repository",
          make=link("/etc/passwd", "1/model")),
    Wrong("R13 folder link", "points outside the model repository", make=link("/etc", "2")),
    Wrong("R13 config link", "points outside the model repository", None,
          make=link("/etc/passwd", "config.pbtxt")),
    Wrong("R13 loop", "in a circle", make=link("loop", "1/loop")),
    Wrong("R13 link up", "a folder that contains it", make=link("..", "1/up")),
    Wrong("R13 FIFO", "is not a regular file",
          make=lambda folder: os.mkfifo(folder / "1" / "pipe")),
    Wrong("R13 FIFO as config", "is not a regular file", None,
          make=lambda folder: os.mkfifo(folder / "config.pbtxt")),
    Wrong("R13 socket", "is not a regular file", make=make_socket),
    Wrong("no version folder", "no version is available",
          make=lambda folder: (folder / "1").rmdir()),
    python("no file's class", "TritonPythonModel", "x = 1\n"),
    python("syntax", "is not a Python file", "def f(:\n"),
    python("import", "no_such_module_anywhere", "import no_such_module_anywhere\n"),
    python("initialize", "no more ink", "class TritonPythonModel:\n"
           "    def execute(self, requests):\n        return []\n"
           "    def initialize(self, args):\n        raise RuntimeError('no more ink')\n"),
    python("exit", "exit", "import os\nos._exit(7)\n"),
    Wrong("python no file", "model.py", PYTHON),
]  # fmt: skip
ROWS = [*CONFIGS, *FILES]


@pytest.fixture(autouse=True)
def _unharmed(unharmed: None) -> None:
    """No row of this table harms another model."""


def load(room: Room, name: str, **parameters: object) -> tuple[int, str]:
    """Status and error text of a load."""
    body = json.dumps({"parameters": parameters}).encode()
    connection = room.http()
    path = f"/v2/repository/models/{urllib.parse.quote(name, safe='')}/load"
    connection.request("POST", path, body)
    answer = read(connection)
    connection.close()
    if answer.status == 200:
        return 200, ""
    assert_tells_nothing(answer.error)
    return answer.status, answer.error


def assert_tells_nothing(text: str) -> None:
    """The name of the model's own file is all that a text may say of files."""
    assert not LEAKS.search(text.replace("model.py", "")), text


def reason(server: RunningServer, name: str) -> str:
    """Why a model is unavailable, as the index says; empty while it is being loaded. It may not
    tell about the machine."""
    entries = [entry for (model, _), entry in server.index().items() if model == name]
    assert not any(entry.get("state") == "READY" for entry in entries), entries
    texts = [entry.get("reason", "") for entry in entries if entry.get("state") == "UNAVAILABLE"]
    text = " ".join(texts)
    assert_tells_nothing(text)
    return text


@pytest.mark.parametrize("row", by_row(ROWS))
def test_a_wrong_model_is_refused_with_a_reason_that_the_index_keeps(
    room: Room, row: Wrong
) -> None:
    row.write(room.repository)
    try:
        _, text = load(room, row.name)
        assert row.text in text
        assert row.text in reason(room.server, row.name)
        assert not (room.repository / "canary").exists()
    finally:
        shutil.rmtree(room.repository / row.name)


BAD_NAMES = ["../etc", "a/../b", "../../etc/passwd", "model/..", "..", "/etc/passwd", "model/sub",
             "model/", " ..", ".. ", "a\0b"]  # fmt: skip
EMPTY_NAMES = [" ", "\t", "\r", "\v", "\f"]
ODD_NAMES = ["...", "..my_model", "model..1", "nothing", "bad\n", "x" * 300]


@pytest.mark.rows("R01")
@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_r01_a_path_is_no_name(room: Room, name: str) -> None:
    text = "model name must not contain path traversal characters"
    assert load(room, name) == (400, text)
    message = pb.RepositoryModelLoadRequest(model_name=name).SerializeToString()
    assert room.refusal("RepositoryModelLoad", message) == ("INVALID_ARGUMENT", text)
    message = pb.RepositoryModelUnloadRequest(model_name=name).SerializeToString()
    assert room.refusal("RepositoryModelUnload", message) == ("INVALID_ARGUMENT", text)


@pytest.mark.rows("R02")
@pytest.mark.parametrize("name", EMPTY_NAMES, ids=ascii)
def test_r02_a_blank_is_no_name(room: Room, name: str) -> None:
    text = "Model name cannot be empty. Please enter a valid name to deploy."
    assert load(room, name) == (400, text)
    message = pb.RepositoryModelLoadRequest(model_name=name).SerializeToString()
    assert room.refusal("RepositoryModelLoad", message) == ("INVALID_ARGUMENT", text)


@pytest.mark.rows("R03")
@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_r03_a_name_without_a_folder_is_not_found_in_the_repository(room: Room, name: str) -> None:
    _, text = load(room, name)
    assert "failed to poll from model repository" in text
    assert len(text) < 500


OVERRIDES = [
    ("{", "the config is not JSON"),
    ("[]", "the config must be a JSON object"),
    ('{"no_such_field": 1}', "no_such_field"),
    ('{"backend": "identity", "max_batch_size": "many"}', "max_batch_size"),
    ('{"backend": "identity"}', "must list its inputs and outputs"),
    ('{"backend": "identity", "name": "other"}', "name is 'other'"),
    ("[" * 100_000, "the config is not JSON"),
    (json.dumps({"backend": "x" * 1_100_000}), "at most 1048576 are read"),
]


@pytest.mark.rows("R05")
@pytest.mark.parametrize(("override", "text"), OVERRIDES, ids=range(len(OVERRIDES)))
def test_r05_a_wrong_override_leaves_the_model_as_it_was(
    room: Room, override: str, text: str
) -> None:
    _, error = load(room, "good", config=override)
    assert text in error
    assert len(error) < 1000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        shows("R06", "file:../../x", "eA=="),
        shows("R06", "file:/abs", "eA=="),
        shows("R06", "file:1/model.onnx", "eA=="),
        shows("R06", "file:", "eA=="),
        shows("R07", "file:1/model.onnx", "no base64"),
    ],
)
def test_r06_r07_files_are_not_taken_over_the_network(room: Room, name: str, content: str) -> None:
    _, error = load(room, "good", **{"config": "{}", name: content})
    assert "this server takes no model files over the network (--allow-model-upload)" in error
    assert not (room.repository / "x").exists()


@pytest.mark.rows("R08")
def test_r08_a_wrong_reload_leaves_the_last_good_files_serving(room: Room) -> None:
    folder = write_adder(room.repository, "adder", 1)
    assert load(room, "adder") == (200, "")
    (folder / "model.onnx").write_bytes(ONNX[:50])
    status, _ = load(room, "adder")
    assert status == 400
    assert add(room) == 1
    entry = room.server.index()["adder", "1"]
    assert entry["state"] == "READY"
    assert "reload failed, the previous files still serve" in entry["reason"]
    (folder / "model.onnx").write_bytes(adder_bytes(5))
    assert load(room, "adder") == (200, "")
    assert add(room) == 5
    assert room.server.index()["adder", "1"].get("reason", "") == ""
    assert room.post("/v2/repository/models/adder/unload", b"{}").status == 200


def add(room: Room) -> float:
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0.0]}]}
    answer = room.post("/v2/models/adder/infer", json.dumps(body).encode())
    assert answer.status == 200, answer
    return float(json.loads(answer.body)["outputs"][0]["data"][0])


@pytest.mark.rows("R17")
def test_r17_folders_that_are_no_version_are_passed_over(room: Room) -> None:
    folder = write_model(room.repository, "oddly", inputs=[("INPUT0", "FP32", "4")])
    for name in ("01", "1a", "-1", "0", "99999999999999999999", "1.5", "latest"):
        (folder / name).mkdir()
    assert load(room, "oddly") == (200, "")
    assert {v for name, v in room.server.index() if name == "oddly"} == {"1"}
    assert room.post("/v2/repository/models/oddly/unload", b"{}").status == 200


@pytest.mark.rows("R18")
def test_r18_loads_and_unloads_at_once_are_put_in_order(room: Room) -> None:
    write_model(room.repository, "torn", inputs=[("INPUT0", "FP32", "4")])
    assert load(room, "torn") == (200, "")
    controlled: list[int] = []
    answered: list[int] = []

    def control(verb: str) -> None:
        controlled.append(room.post(f"/v2/repository/models/torn/{verb}", b"{}").status)

    def ask() -> None:
        for _ in range(20):
            answer = room.post("/v2/models/torn/infer", good_body([1.0, 2.0, 3.0, 4.0]))
            answered.append(answer.status)
            if answer.status == 200:
                assert json.loads(answer.body)["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    threads += [
        threading.Thread(target=control, args=(("load", "unload")[n % 2],)) for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controlled == [200] * 50
    assert len(answered) == 80
    assert set(answered) <= {200, 400, 404, 503}
    assert load(room, "torn") == (200, "")
    assert room.post("/v2/models/torn/infer", good_body()).status == 200
    assert room.post("/v2/repository/models/torn/unload", b"{}").status == 200


@pytest.mark.rows("R21")
@pytest.mark.parametrize(
    "body", [b'{"ready": "yes"}', b'{"ready": 1}', b"[" * 10_000, b"{", b"\xff", b"[]"]
)
def test_r21_a_wrong_index_request_is_refused(room: Room, body: bytes) -> None:
    assert room.post("/v2/repository/index", body).error


def setting_message(target: str, document: dict[str, object]) -> tuple[str, bytes]:
    """Method and message of the same over gRPC; text values only."""
    ((name, value),) = document.items()
    if target == "logging":
        log = pb.LogSettingsRequest()
        log.settings[name].string_param = str(value)
        return "LogSettings", log.SerializeToString()
    trace = pb.TraceSettingRequest()
    trace.settings[name].value.extend(value if isinstance(value, list) else [str(value)])
    return "TraceSetting", trace.SerializeToString()


@pytest.mark.parametrize(
    ("target", "document"),
    [
        shows("R23a", "logging", {"log_file": "/tmp/x"}),
        shows("R23a", "trace/setting", {"trace_file": "/tmp/x"}),
        shows("R23b", "logging", {"log_verbose_level": "much"}),
        shows("R23b", "logging", {"log_format": "mine"}),
        shows("R23b", "logging", {"volume": "11"}),
        shows("R23b", "trace/setting", {"trace_level": ["ALL"]}),
        shows("R23b", "trace/setting", {"trace_rate": "-1"}),
        shows("R23b", "trace/setting", {"colour": "1"}),
    ],
)
def test_r23_settings_take_no_paths_and_only_values_that_are_some(
    room: Room, target: str, document: dict[str, object]
) -> None:
    assert room.post(f"/v2/{target}", json.dumps(document).encode()).error
    room.refusal(*setting_message(target, document))


@pytest.fixture(scope="module")
def watched(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    """A server that follows its repository, which holds one good model."""
    repository = tmp_path_factory.mktemp("watched") / "models"
    repository.mkdir()
    write_model(repository, "good", inputs=[("INPUT0", "FP32", "4")])
    room = Room(serve(repository, "--model-control-mode=watch"), repository)
    yield room
    room.assert_unharmed()
    room.assert_settled(MAX_GROWTH_BYTES)
    room.close()
    assert room.server.stop() == 0


@pytest.mark.alone
def test_all_wrong_models_at_once_leave_the_good_one_serving(watched: Room) -> None:
    with watched.lateness_bound(2.0):
        for row in ROWS:
            row.write(watched.repository)
        for row in ROWS:
            watched.server.wait_until(
                lambda row=row: row.text in reason(watched.server, row.name),  # type: ignore[misc]
                f"gave {row} as the reason",
            )
            watched.assert_unharmed()
    assert not (watched.repository / "canary").exists()
    for row in ROWS:
        shutil.rmtree(watched.repository / row.name)
    watched.server.wait_until(lambda: len(watched.server.index()) == 1, "forgot them")


@pytest.mark.rows("R04")
def test_r04_a_watched_repository_takes_no_commands(watched: Room) -> None:
    text = "explicit model load / unload is not allowed if polling is enabled"
    assert load(watched, "good") == (503, text)


CUDA_PLACE = {"raw_handle": {"b64": base64.b64encode(bytes(64)).decode()}, "device_id": 0}


@pytest.mark.rows("V46c")
@pytest.mark.parametrize("kind", ["system", "cuda"])
def test_v46_without_the_flag_no_region_is_taken(watched: Room, kind: str) -> None:
    place = {"key": "/x", "offset": 0} if kind == "system" else CUDA_PLACE
    body = json.dumps(place | {"byte_size": 64}).encode()
    answer = watched.post(f"/v2/{kind}sharedmemory/region/x/register", body)
    assert "--allow-client-shm" in answer.error


@pytest.mark.rows("R19")
def test_r19_a_repository_that_is_gone_for_a_while_goes_on_serving(watched: Room) -> None:
    away = watched.repository.with_name("away")
    watched.repository.rename(away)
    watched.server.wait_until(
        lambda: any("goes on serving" in line for line in watched.server.output), "saw it gone"
    )
    watched.assert_unharmed()
    away.rename(watched.repository)
    write_adder(watched.repository, "adder", 3)
    watched.server.wait_until(
        lambda: watched.server.index().get(("adder", "3"), {}).get("state") == "READY", "came back"
    )
    shutil.rmtree(watched.repository / "adder")
    watched.server.wait_until(lambda: len(watched.server.index()) == 1, "forgot the model")


@pytest.mark.rows("R20")
def test_r20_files_of_editors_reload_nothing(watched: Room) -> None:
    folder = watched.repository / "good"
    logged = len(watched.server.output)
    for name in (".config.pbtxt.swp", "config.pbtxt~", "1/weights.part", "1/.hidden", "1/x.tmp"):
        (folder / name).write_bytes(b"half")
    write_adder(watched.repository, "later", 1)
    watched.server.wait_until(lambda: ("later", "1") in watched.server.index(), "saw the later one")
    assert not any("'good'" in line for line in watched.server.output[logged:])
    shutil.rmtree(watched.repository / "later")
    watched.server.wait_until(lambda: len(watched.server.index()) == 1, "forgot the model")
