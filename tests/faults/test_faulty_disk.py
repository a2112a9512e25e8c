"""The disk fails (EIO), in a real server: what serves goes on serving, the log says why once a
minute, and when the disk is mended, what was missed is made up for although no file changes."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from auth_site import Certificates, Keys
from cryptography import x509
from fault_load import Callers, callers, is_refused_for_now
from fault_models import write_crash, write_model
from fault_room import Room
from faulty_disk import FaultyDisk
from paged_models import save_model
from patience import patience
from serving import RunningServer, adder_bytes, write_adder, write_identity

from trivet.server.logs.outage import PERIOD_S

Serve = Callable[..., RunningServer]
POLL = ("--model-control-mode=poll", "--repository-poll-secs=0.2")
LOOKS = 6
"""After so many failures the server has met the fault at more than one look at the repository."""
FILE_LOOKS = 2
"""The same for other files, which it looks at once a second."""
SMALL = 'backend: "llm"\nparameters { key: "kv_cache_bytes" value { string_value: "64000000" } }\n'
FAULT = "Input/output error"


@dataclass
class Site:
    """A server whose repository, or other folder, is on a faulty disk."""

    server: RunningServer
    disk: FaultyDisk
    folder: Path

    def add(self) -> float:
        """What the model `adder` makes of 0."""
        given = {"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}
        body = json.dumps({"inputs": [given]}).encode()
        url = f"http://{self.server.http}/v2/models/adder/infer"
        with urllib.request.urlopen(url, body, timeout=patience()) as answer:
            return float(json.load(answer)["outputs"][0]["data"][0])

    def said(self, text: str) -> int:
        """In how many lines of the log it stands."""
        return sum(text in line for line in self.server.output)

    def reason(self, version: str = "1") -> str:
        """What the index says of the adder."""
        return self.server.index()["adder", version].get("reason", "")

    def meet_the_fault(self, looks: int = LOOKS) -> None:
        """Returns when the server has looked several times."""
        before = self.disk.num_failed
        self.server.wait_until(lambda: self.disk.num_failed >= before + looks, "looked")


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return FaultyDisk(workspace)


@pytest.fixture
def start(serve: Serve, disk: FaultyDisk, models: Path) -> Callable[..., Site]:
    """Starts a server of `adder` 1, whose folder `below` is on the faulty disk."""
    write_adder(models, "adder", 1)

    def begin(*flags: str, below: Path = models) -> Site:
        with disk.below(below):
            return Site(serve(models, *flags), disk, below)

    return begin


@contextmanager
def asked_all_the_time(site: Site, *right: float) -> Iterator[Callers]:
    """Requests that must not notice anything."""

    def ask() -> str:
        found = site.add()
        assert found in right
        return "asked"

    with callers() as running:
        running.add(ask, 0.005)
        yield running
    assert running.faults == []
    assert running.counts["asked"] >= 3


# -- models --------------------------------------------------------------------------------------


def replace_file(models: Path) -> None:
    fresh = models.parent / "fresh.onnx"
    fresh.write_bytes(adder_bytes(7))
    fresh.rename(models / "adder" / "1" / "model.onnx")


def add_config(models: Path) -> None:
    config = 'version_policy { latest { num_versions: 2 } }\nparameters { key: "a" value {} }\n'
    (models / "adder" / "config.pbtxt").write_text(config)
    replace_file(models)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (replace_file, "open"),
        (add_config, "read"),
        pytest.param(replace_file, "read", marks=pytest.mark.slow),
        pytest.param(add_config, "open", marks=pytest.mark.slow),
    ],
)
def test_a_file_that_cannot_be_read_leaves_the_last_good_version_and_is_served_once_it_can(
    start: Callable[..., Site], change: Callable[[Path], None], kind: str
) -> None:
    site = start(*POLL)
    with asked_all_the_time(site, 1, 7):
        with site.disk.failing(kind):
            change(site.folder)
            site.server.wait_until(lambda: FAULT in site.reason(), "said why in the index")
            site.meet_the_fault()
            assert site.add() == 1
            entry = site.server.index()["adder", "1"]
            assert entry["state"] == "READY"
            assert entry["reason"].startswith("reload failed, the previous files still serve:")
            assert str(site.folder) not in entry["reason"]
            assert site.server.is_ready()
        site.server.wait_until(lambda: site.add() == 7, "took the new file")
        site.server.wait_until(lambda: not site.reason(), "forgot the fault")
    assert site.said("did not load") == 1
    assert site.said("Traceback") == 0
    assert site.server.stop() == 0


def test_a_new_version_that_cannot_be_read_is_served_once_it_can(
    start: Callable[..., Site],
) -> None:
    """Followed by events, of which a disk that is mended sends none."""
    site = start("--repository-poll-secs=0.3")
    with asked_all_the_time(site, 1, 2):
        with site.disk.failing("read"):
            write_adder(site.folder, "adder", 2)
            site.server.wait_until(lambda: ("adder", "2") in site.server.index(), "tried it")
            site.server.wait_until(lambda: FAULT in site.reason("2"), "said why in the index")
            site.meet_the_fault()
            assert site.add() == 1
        site.server.wait_until(lambda: site.add() == 2, "took the new version")
    assert site.said("did not load") == 1
    assert site.server.stop() == 0


def test_the_file_of_a_python_model_that_cannot_be_read_is_loaded_once_it_can(
    start: Callable[..., Site], models: Path
) -> None:
    """Its own process reads it."""
    site = start(*POLL, below=models / "crash" / "1")
    entry = ("crash", "1")
    with asked_all_the_time(site, 1):
        with site.disk.failing("read"):
            write_crash(models)
            site.server.wait_until(
                lambda: FAULT in site.server.index().get(entry, {}).get("reason", ""), "said why"
            )
            site.meet_the_fault()
        site.server.wait_until(lambda: site.server.index()[entry]["state"] == "READY", "loaded it")
    assert site.said("did not load") == 1
    assert site.said("Traceback") == 0
    assert site.server.stop() == 0


def test_the_files_of_a_language_model_that_cannot_be_read_are_loaded_once_they_can(
    start: Callable[..., Site], models: Path
) -> None:
    """Its engine reads them, in a process of its own."""
    made = models.parent / "small"
    (made / "1").mkdir(parents=True)
    (made / "config.pbtxt").write_text(SMALL)
    save_model(made / "1")
    site = start(*POLL, below=models / "small" / "1" / "model.safetensors")
    entry = ("small", "1")
    with asked_all_the_time(site, 1):
        with site.disk.failing("open", "read"):
            made.rename(models / "small")
            site.server.wait_until(
                lambda: FAULT in site.server.index().get(entry, {}).get("reason", ""), "said why"
            )
            site.meet_the_fault(2)
        site.server.wait_until(lambda: site.server.index()[entry]["state"] == "READY", "loaded it")
    assert site.said("did not load") == 1
    assert site.said("Traceback") == 0
    assert site.server.stop() == 0


# -- the repository ------------------------------------------------------------------------------


def test_a_repository_that_cannot_be_listed_leaves_what_serves_and_is_told_once_a_minute(
    start: Callable[..., Site],
) -> None:
    site = start(*POLL)
    assert PERIOD_S == 60
    with asked_all_the_time(site, 1, 2):
        with site.disk.failing("list"):
            write_adder(site.folder, "adder", 2)
            site.meet_the_fault()
            assert site.said(f"cannot be read: {FAULT}; what serves goes on serving") == 1
        site.server.wait_until(lambda: site.add() == 2, "saw what had come meanwhile")
        with site.disk.failing("list"):
            site.meet_the_fault()
    assert site.said(FAULT) == 1, "a second time within the minute"
    assert site.said("the model repository can be read again") == 1
    assert site.server.stop() == 0


def test_a_load_that_is_asked_for_is_refused_for_now_while_the_repository_cannot_be_listed(
    start: Callable[..., Site], models: Path
) -> None:
    write_model(models, "good", inputs=[("INPUT0", "FP32", "4")])
    site = start("--model-control-mode=explicit", "--load-model=*")
    room = Room(site.server, models)
    load = "/v2/repository/models/adder/load"
    with site.disk.failing("list"):
        for _ in range(3):
            answer = room.post(load, b"{}")
            assert is_refused_for_now(answer)
            assert "the model repository cannot be read now" in answer.error
        assert site.add() == 1
    with site.disk.failing("read"):
        replace_file(models)
        answer = room.post(load, b"{}")
        assert answer.status == 400
        assert FAULT in answer.error
        assert site.add() == 1
    assert room.post(load, b"{}").status == 200
    assert site.add() == 7
    assert site.said(f"cannot be read: {FAULT}; what serves goes on serving") == 1
    assert site.said("Traceback") == 0
    room.close()
    assert site.server.stop() == 0


@pytest.mark.parametrize("kind", ["list", "stat"])
def test_a_models_folder_that_cannot_be_read_leaves_it_serving_throughout(
    start: Callable[..., Site], models: Path, kind: str
) -> None:
    """Not only while it lasts: nothing is unloaded when the folder is there again, either."""
    site = start(*POLL, below=models / "adder")
    with asked_all_the_time(site, 1):
        with site.disk.failing(kind):
            site.server.wait_until(lambda: FAULT in site.reason(), "said why in the index")
            site.meet_the_fault()
            assert site.said(FAULT) == 1
        site.server.wait_until(lambda: not site.reason(), "forgot the fault")
        assert site.server.index()["adder", "1"]["state"] == "READY"
    assert site.said("is unloaded") == 0
    assert site.server.stop() == 0


# -- what the server writes ----------------------------------------------------------------------


def test_logs_and_traces_that_cannot_be_written_cost_no_request_and_go_on_afterwards(
    start: Callable[..., Site], tmp_path: Path
) -> None:
    written = tmp_path / "written"
    written.mkdir()
    log, traces = written / "server.log", written / "traces.json"
    tracing = ("mode=triton", "level=TIMESTAMPS", "rate=1", f"triton,file={traces}")
    site = start(
        f"--log-file={log}",
        "--log-verbose=1",
        *(f"--trace-config={each}" for each in tracing),
        below=written,
    )
    site.add()
    site.server.wait_until(lambda: traces.exists() and b"ns" in traces.read_bytes(), "traced")
    with site.disk.failing("write"):
        before = site.disk.num_failed
        for _ in range(200):
            site.add()
        site.server.wait_until(lambda: site.disk.num_failed > before + 200, "tried to write")
    num_bytes = len(traces.read_bytes())
    site.add()
    site.server.wait_until(lambda: len(traces.read_bytes()) > num_bytes, "traced again")
    site.server.wait_until(lambda: f"written to {traces} again" in log.read_text(), "logged again")
    assert site.said("the log cannot be written: [Errno 5]") == 1
    assert site.server.stop() == 0
    found = sum("timestamps" in entry for entry in json.loads(traces.read_text()))
    assert 2 <= found < 100, "those of the fault are lost, the file can be read"
    assert log.read_text().count("traces are lost") <= 1


def test_a_keys_file_that_cannot_be_written_stays_as_it_was(
    disk: FaultyDisk, tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    keys = Keys(folder / "keys.toml")
    keys.add("first", "infer")
    before = keys.path.read_text()
    command = [sys.executable, "-m", "trivet", "keys", f"--file={keys.path}", "create"]
    command += ["second", "--scope=infer"]
    with disk.below(folder), disk.failing("write"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"'{keys.path}' was not changed: {FAULT}" in done.stderr
    assert done.stdout == "", "a key that does not work"
    assert keys.path.read_text() == before
    assert [path.name for path in folder.iterdir()] == ["keys.toml"]


# -- keys and certificates -----------------------------------------------------------------------


def knows(server: RunningServer, keys: Keys, name: str) -> bool:
    """Whether a key opens the server."""
    request = urllib.request.Request(f"http://{server.http}/v2/models/m", headers=keys.header(name))
    try:
        with urllib.request.urlopen(request, timeout=patience()):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code != 401


@pytest.mark.parametrize(
    "kind",
    [
        "open",
        pytest.param("read", marks=pytest.mark.slow),
        pytest.param("stat", marks=pytest.mark.slow),
    ],
)
def test_keys_that_cannot_be_read_leave_the_old_ones_in_force_and_are_taken_once_they_can(
    serve: Serve, disk: FaultyDisk, models: Path, tmp_path: Path, kind: str
) -> None:
    write_identity(models, "m")
    folder = tmp_path / "keys"
    folder.mkdir()
    keys = Keys(folder / "keys.toml")
    keys.add("old", "infer")
    with disk.below(folder):
        server = serve(models, f"--auth-keys-file={keys.path}")
    site = Site(server, disk, folder)
    with disk.failing(kind, "read"):
        keys.add("new", "infer")
        server.wait_until(lambda: site.said("the keys read before stay in use") == 1, "told")
        site.meet_the_fault(FILE_LOOKS)
        assert knows(server, keys, "old")
        assert not knows(server, keys, "new")
    server.wait_until(lambda: knows(server, keys, "new"), "took the new key")
    assert knows(server, keys, "old")
    assert site.said("the keys read before stay in use") == 1
    assert server.stop() == 0


def test_a_certificate_that_cannot_be_read_leaves_the_old_one_and_is_taken_once_it_can(
    serve: Serve, disk: FaultyDisk, models: Path, tmp_path: Path
) -> None:
    write_identity(models, "m")
    folder = tmp_path / "certificates"
    folder.mkdir()
    certificates = Certificates(folder)
    with disk.below(folder):
        server = serve(
            models,
            f"--http-tls-cert={certificates.cert}",
            f"--http-tls-key={certificates.key}",
            wait=False,
        )
    server.wait_until(lambda: any("model control" in line for line in server.output), "ready")
    site = Site(server, disk, folder)
    before = shown(server, certificates)
    with disk.failing("open"):
        after = certificates.renew()
        server.wait_until(lambda: site.said("read before stays in use") == 1, "told")
        site.meet_the_fault(FILE_LOOKS)
        assert shown(server, certificates) == before != after
    server.wait_until(lambda: shown(server, certificates) == after, "took the new certificate")
    assert site.said("read before stays in use") == 1
    assert server.stop() == 0


def shown(server: RunningServer, certificates: Certificates) -> int:
    """The serial number of the certificate that a new connection is shown."""
    address = ("127.0.0.1", server.http_port)
    context = certificates.client_context()
    with context.wrap_socket(
        socket.create_connection(address, timeout=patience()), server_hostname="127.0.0.1"
    ) as connection:
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number
