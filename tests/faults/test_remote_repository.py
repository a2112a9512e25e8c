"""A server whose models lie in a bucket, while the bucket fails: what serves goes on serving.

One server for the module; somebody asks it all the time, and asks whether it is ready."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bucket_site import KEYS, Bucket, s3_bucket
from patience import patience
from serving import IDENTITY, RunningServer

CONFIG = IDENTITY.format(datatype="TYPE_FP32", dims="4", more="").encode()
BODY = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
POLL = "--repository-poll-secs=0.2"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_bucket() as opened, pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        opened.put_all({"echo/config.pbtxt": CONFIG, "echo/1/weights": b"first"})
        yield opened


@dataclass
class Asker(threading.Thread):
    """Asks the model, and whether the server is ready, until it is told to stop."""

    server: RunningServer
    failures: list[str] = field(default_factory=list)
    num_answers: int = 0

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._ends = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        while not self._ends.is_set():
            try:
                self.server.post("/v2/models/echo/infer", BODY)
            except OSError as error:
                self.failures.append(str(error))
            if not self.server.is_ready():
                self.failures.append("not ready")
            self.num_answers += 1
            time.sleep(0.005)

    def stop(self) -> None:
        self._ends.set()
        self.join(patience())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remote") / "cache"


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], bucket: Bucket, cache: Path
) -> Iterator[RunningServer]:
    """It starts while the bucket throttles and breaks off."""
    bucket.faults.refusals = [(503, "SlowDown")] * 4
    bucket.faults.cuts = [2]
    running = serve(bucket.s3, POLL, f"--remote-cache={cache}")
    yield running
    assert running.stop() == 0
    assert not [*cache.glob("trees/*")]


@pytest.fixture
def asked(server: RunningServer) -> Iterator[Asker]:
    asker = Asker(server)
    asker.start()
    yield asker
    asker.stop()
    assert asker.num_answers > 0
    assert asker.failures == []


def wait_for(server: RunningServer, line: str, count: int = 1) -> None:
    """Until the log has it so often."""
    server.wait_until(lambda: sum(line in each for each in server.output) >= count, f"said {line}")


def is_served(server: RunningServer, version: str) -> bool:
    entry = server.index().get(("echo", version), {})
    return entry.get("state") == "READY"


def files_of(cache: Path, version: str) -> dict[str, bytes]:
    """Of a version, as the server has it here."""
    return {path.name: path.read_bytes() for path in cache.glob(f"trees/*/models/echo/{version}/*")}


def test_a_version_that_is_uploaded_file_by_file_appears_whole(
    server: RunningServer, asked: Asker, bucket: Bucket, cache: Path
) -> None:
    seen: list[dict[str, bytes]] = []

    def go_on() -> None:
        seen.append(files_of(cache, "2"))
        bucket.put("echo/2/tokens", b"second file")

    bucket.faults.refusals = [(503, "SlowDown")] * 4
    bucket.faults.cuts = [1000]
    bucket.faults.before = [go_on]
    bucket.put("echo/2/weights", b"2" * 5000)
    wait_for(server, "model 'echo' is being written")
    server.wait_until(lambda: is_served(server, "2"), "served version 2")
    assert seen == [{}]
    assert files_of(cache, "2") == {"weights": b"2" * 5000, "tokens": b"second file"}


@pytest.mark.rows("R34")
def test_a_bucket_that_vanishes_leaves_what_serves(
    server: RunningServer, asked: Asker, bucket: Bucket
) -> None:
    warning = "there is no bucket 'bucket' (404 NoSuchBucket)"
    num_seen = len(bucket.faults.seen)
    bucket.faults.is_gone = True
    wait_for(server, warning)
    server.wait_until(lambda: len(bucket.faults.seen) > num_seen + 5, "asked again")
    bucket.faults.is_gone = False
    bucket.put("echo/3/weights", b"third")
    wait_for(server, f"{bucket.s3} can be read again")
    server.wait_until(lambda: is_served(server, "3"), "served version 3")
    assert sum(warning in line for line in server.output) == 1


@pytest.mark.rows("R34")
def test_rights_that_are_taken_away_leave_what_serves(
    server: RunningServer, asked: Asker, bucket: Bucket
) -> None:
    returns = sum("can be read again" in line for line in server.output)
    bucket.faults.needs = "Credential=somebody-else/"
    wait_for(server, "may not be read with these credentials (403 InvalidAccessKeyId)")
    bucket.faults.needs = ""
    wait_for(server, "can be read again", returns + 1)
    assert not any(KEYS["AWS_SECRET_ACCESS_KEY"] in line for line in server.output)


@pytest.mark.rows("R35")
def test_a_name_that_leads_out_of_the_folder_keeps_its_own_model_back(
    server: RunningServer, bucket: Bucket, cache: Path
) -> None:
    bucket.put("evil/1/../../../../planted", b"x")
    bucket.put("good/config.pbtxt", CONFIG)
    bucket.put("good/1/weights", b"good")
    server.wait_until(lambda: ("good", "1") in server.index(), "served the other one")
    wait_for(server, "cannot be a file: its name leads out of its folder")
    (row,) = [row for (name, _), row in server.index().items() if name == "evil"]
    assert row["state"] == "UNAVAILABLE"
    assert "its name leads out of its folder" in row["reason"]
    assert not [*cache.parent.rglob("planted")]
    bucket.delete("evil/1/../../../../planted")


@pytest.mark.rows("R40b")
def test_wrong_keys_end_the_start_with_a_sentence(
    serve: Callable[..., RunningServer], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.faults.needs = "Credential=somebody-else/"
    refused = serve(bucket.s3, f"--remote-cache={tmp_path}", wait=False)
    assert refused.process.wait(patience()) == 1
    bucket.faults.needs = ""
    deadline_s = time.monotonic() + patience()
    while not any("the server cannot start" in line for line in refused.output):
        assert time.monotonic() < deadline_s, refused.output
        time.sleep(0.02)
    told = "".join(refused.output)
    assert "may not be read with these credentials (403 InvalidAccessKeyId)" in told
