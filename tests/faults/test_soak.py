"""Minutes of requests while models are added, replaced and removed each second.

No request fails, every answer is that of the version that gave it, memory and descriptors stay.
Some seconds of it are among the ordinary tests; TRIVET_SOAK_S sets the seconds of the long one,
which also says whether memory that has grown goes on growing.
"""

import math
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from fault_models import write_crash
from fault_room import MIB, Vitals, pending
from patience import patience
from serving import RunningServer, write_adder
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

pytestmark = pytest.mark.alone
Serve = Callable[..., RunningServer]
SHORT_S = 6.0
LONG_S = float(os.environ.get("TRIVET_SOAK_S", "180"))
STEP_S = 1.0
WARM_UP_STEPS = 6
MAX_GROWTH_BYTES = 48 * MIB
MAX_LATE_GROWTH_BYTES = 4 * MIB
CHAIN = """
platform: "ensemble"
ensemble_scheduling { step [
  { model_name: "newest" input_map { key: "x" value: "x" } output_map { key: "y" value: "sum" } },
  { model_name: "same" input_map { key: "x" value: "sum" } output_map { key: "y" value: "y" } }
] }
"""
ALL_VERSIONS = "version_policy { all {} }\n"


class Shop:
    """The repository while it is changed; each change is one step and is served before the next.

    `newest` serves its newest version only, `every` all of them, `same` has one version whose file
    is replaced by one with another answer, `python` is left alone, `guest` comes and goes. `chain`
    is an ensemble of `newest` and `same`, both of which are replaced under it all the time.
    """

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.step = 1
        self.same = [1, 1]
        """The answers that `same` may give: the replaced file's and the replacing one's."""
        repository.mkdir()
        for name in ("newest", "every", "same"):
            write_adder(repository, name, 1)
        (repository / "every" / "config.pbtxt").write_text(ALL_VERSIONS)
        write_crash(repository, "python")
        (repository / "chain" / "1").mkdir(parents=True)
        (repository / "chain" / "config.pbtxt").write_text(CHAIN)

    def change(self, server: RunningServer) -> None:
        """Adds a version everywhere, waits until it serves, takes the one before it away."""
        old, new = self.step, self.step + 1
        self.same[1] = new
        write_adder(self.repository, "newest", new)
        write_adder(self.repository, "every", new)
        self._replace_same(new)
        if new % 2:
            write_adder(self.repository, "guest", 1)
        else:
            shutil.rmtree(self.repository / "guest", ignore_errors=True)
        for name in ("newest", "every"):
            self._wait(server, name, new)
        client = httpclient.InferenceServerClient(server.http)
        server.wait_until(lambda: _add(client, httpclient, "same")[0] == new, "replaced the file")
        client.close()
        self.same[0] = new
        for name in ("newest", "every"):
            if old > 1:
                shutil.rmtree(self.repository / name / str(old))
        self.step = new

    def _replace_same(self, amount: int) -> None:
        made = write_adder(self.repository.parent, "made", 1, amount=amount)
        (made / "model.onnx").rename(self.repository / "same" / "1" / "model.onnx")
        shutil.rmtree(made.parent)

    def _wait(self, server: RunningServer, name: str, version: int) -> None:
        def serves() -> bool:
            return server.index().get((name, str(version)), {}).get("state") == "READY"

        server.wait_until(serves, f"served version {version} of {name}")


class Caller:
    """Calls all models over one protocol without a pause; keeps counts and what went wrong."""

    def __init__(self, server: RunningServer, library: Any, address: str, shop: Shop) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self._library = library
        self._shop = shop
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._library.InferenceServerClient(self._address) as client:
            while not self._stop.is_set():
                for check in (
                    self._newest, self._every, self._pinned, self._same, self._chain, self._python
                ):  # fmt: skip
                    try:
                        check(client)
                    except InferenceServerException as error:
                        self.faults.append(f"{check.__name__}: {error}")

    def _newest(self, client: Any) -> None:
        self._expect_own_version(client, "newest")

    def _every(self, client: Any) -> None:
        self._expect_own_version(client, "every")

    def _pinned(self, client: Any) -> None:
        answer, version = _add(client, self._library, "every", "1")
        self._note("pinned", (answer, version) == (1, 1), answer)

    def _same(self, client: Any) -> None:
        oldest = self._shop.same[0]
        answer, _ = _add(client, self._library, "same")
        self._note("same", oldest <= answer <= self._shop.same[1], answer)

    def _chain(self, client: Any) -> None:
        oldest = self._shop.step + self._shop.same[0]
        answer, _ = _add(client, self._library, "chain")
        newest = self._shop.step + 1 + self._shop.same[1]
        self._note("chain", oldest <= answer <= newest, answer)

    def _python(self, client: Any) -> None:
        given = self._library.InferInput("COMMAND", [1], np_to_triton_dtype(np.object_))
        given.set_data_from_numpy(np.array([b"pid"], np.object_))
        answer = int(client.infer("python", [given]).as_numpy("PID")[0])
        self._note("python", answer > 1, answer)

    def _expect_own_version(self, client: Any, model: str) -> None:
        answer, version = _add(client, self._library, model)
        self._note(model, answer == version, answer)

    def _note(self, what: str, is_right: bool, answer: int) -> None:
        self.counts[what] += 1
        if not is_right:
            self.faults.append(f"{what} answered {answer}")


def _add(client: Any, library: Any, model: str, version: str = "") -> tuple[int, int]:
    """What a model adds, and the version that says it did."""
    given = library.InferInput("x", [1], "FP32")
    given.set_data_from_numpy(np.zeros(1, np.float32))
    result = client.infer(model, [given], model_version=version)
    response = result.get_response()
    served = response["model_version"] if isinstance(response, dict) else response.model_version
    return int(result.as_numpy("y")[0]), int(served)


@contextmanager
def callers(server: RunningServer, shop: Shop) -> Iterator[list[Caller]]:
    """Two callers for each protocol."""
    addresses = [(httpclient, server.http), (grpcclient, server.grpc)] * 2
    running = [Caller(server, library, address, shop) for library, address in addresses]
    try:
        yield running
    finally:
        for caller in running:
            caller.stop()


def hammer(
    server: RunningServer, shop: Shop, num_steps: int, sizes: list[int] | None = None
) -> Counter[str]:
    """Changes the repository under load; returns how many right answers there were of what. Notes
    the server's memory after each change in `sizes`."""
    with callers(server, shop) as running:
        for _ in range(num_steps):
            started = time.monotonic()
            shop.change(server)
            if sizes is not None:
                sizes.append(Vitals.of(server.process.pid).rss_bytes)
            time.sleep(max(0.0, STEP_S - (time.monotonic() - started)))
    faults = [fault for caller in running for fault in caller.faults]
    assert faults == [], f"{len(faults)} faults, the first: {faults[:5]}"
    return sum((caller.counts for caller in running), Counter())


def settled(server: RunningServer, most_fds: float = math.inf) -> Vitals:
    """The server's vitals when nothing is being loaded, unloaded or asked, and no more descriptors
    are open than are allowed (else: after a wait that is long enough for all to close)."""

    def is_still() -> bool:
        states = {entry.get("state") for entry in server.index().values()}
        return states <= {"READY", "UNAVAILABLE"} and pending(server) == 0

    server.wait_until(is_still, "came to rest")
    deadline = time.monotonic() + patience()
    while (vitals := Vitals.of(server.process.pid)).num_fds > most_fds:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return vitals


def late_growth_bytes(sizes: list[int]) -> float:
    """From the third quarter of the time to the last: what has warmed up by then stays as it is."""
    quarter = len(sizes) // 4
    return median(sizes[-quarter:]) - median(sizes[-2 * quarter : -quarter])


@pytest.mark.parametrize(
    "length_s",
    [
        pytest.param(SHORT_S, marks=pytest.mark.timeout(SHORT_S + 180)),
        pytest.param(LONG_S, marks=[pytest.mark.slow, pytest.mark.timeout(LONG_S + 180)]),
    ],
)
def test_requests_do_not_notice_that_models_come_and_go(
    serve: Serve, tmp_path: Path, length_s: float
) -> None:
    shop = Shop(tmp_path / "models")
    server = serve(shop.repository, "--model-control-mode=watch")
    hammer(server, shop, WARM_UP_STEPS)
    before = settled(server)
    sizes: list[int] = []
    counts = hammer(server, shop, int(length_s / STEP_S) // 2 * 2, sizes)
    after = settled(server, before.num_fds)
    assert (
        min(counts[name] for name in ("newest", "every", "pinned", "same", "chain", "python")) > 30
    )
    assert after.num_fds <= before.num_fds
    assert after.num_threads <= before.num_threads + 4
    assert after.children == before.children
    growth = after.rss_bytes - before.rss_bytes
    assert growth <= MAX_GROWTH_BYTES, f"memory grew by {growth / MIB:.0f} MiB"
    late_growth = late_growth_bytes(sizes)
    if length_s > SHORT_S:
        assert late_growth <= MAX_LATE_GROWTH_BYTES, f"still {late_growth / MIB:.0f} MiB a quarter"
    assert not any("Traceback" in line for line in server.output)
    print(f"{dict(counts)}, {growth / MIB:.1f} MiB more, {late_growth / MIB:.1f} at the end")
    assert server.stop() == 0
