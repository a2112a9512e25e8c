"""A real model at 300 requests a second, asked by tritonclient over HTTP and gRPC, whose canary
turns bad: nobody whom the stable version is to answer notices, and within a second the canary is
asked no more."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from patience import patience
from serving import RunningServer
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.slow, pytest.mark.alone]
RATE = 300.0
FAULT = "its weights have gone"
NUM_CLIENTS = 6
TRAFFIC = """
sticky = ["header:x-user"]
[rollout]
steps = [25, 100]
bake_s = 600
min_samples = 20
[rollout.guards]
errors = 0
"""
CONFIG = """
backend: "python"
max_batch_size: 32
dynamic_batching { }
input [{ name: "pixels" data_type: TYPE_FP32 dims: [ 64 ] }]
output [{ name: "digit" data_type: TYPE_INT64 dims: [ 1 ] }]
"""
MODEL = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = os.path.join(args["model_repository"], args["model_version"])
        weights = np.load(os.path.join(folder, "weights.npz"))
        self.coefficients, self.intercepts = weights["coefficients"], weights["intercepts"]

    def execute(self, requests):
        if {flag!r} and os.path.exists({flag!r}):
            error = pb_utils.TritonError({fault!r})
            return [pb_utils.InferenceResponse(error=error) for _ in requests]
        return [self.answer(request) for request in requests]

    def answer(self, request):
        pixels = pb_utils.get_input_tensor_by_name(request, "pixels").as_numpy()
        scores = pixels @ self.coefficients + self.intercepts
        digits = scores.argmax(-1).astype(np.int64)[:, None]
        return pb_utils.InferenceResponse([pb_utils.Tensor("digit", digits)])
"""


@dataclass
class Digits:
    """Pictures of digits, and what a model that was fitted to them says."""

    pixels: np.ndarray
    found: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray


@pytest.fixture(scope="module")
def digits() -> Digits:
    pixels, labels = load_digits(return_X_y=True)
    scaled = (pixels / 16).astype(np.float32)
    fitted = LogisticRegression(max_iter=200).fit(scaled, labels)
    assert fitted.score(scaled, labels) > 0.9
    coefficients, intercepts = (
        each.astype(np.float32) for each in (fitted.coef_.T, fitted.intercept_)
    )
    return Digits(scaled, fitted.predict(scaled), coefficients, intercepts)


def drop(folder: Path, version: int, digits: Digits, flag: str = "") -> None:
    """A version, at once; it fails while the flag is there."""
    made = folder.parent.parent / f"made-{version}"
    made.mkdir()
    (made / "model.py").write_text(MODEL.format(flag=flag, fault=FAULT))
    np.savez(made / "weights.npz", coefficients=digits.coefficients, intercepts=digits.intercepts)
    made.rename(folder / str(version))


@dataclass
class Answered:
    """One request: who computed it ("": nobody says), what was wrong, and when it came."""

    version: str
    fault: str
    at_s: float


@dataclass
class Client:
    """Asks a real client library so often a second, whether answers are late or not."""

    server: RunningServer
    digits: Digits
    number: int
    rate: float
    answers: list[Answered] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._ask_on)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask_on(self) -> None:
        over_http = self.number % 2 == 0
        module: Any = tritonclient.http if over_http else tritonclient.grpc
        address = self.server.http if over_http else self.server.grpc
        client = module.InferenceServerClient(address)
        due_s = time.monotonic()
        while not self._is_over.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + 1 / self.rate, time.monotonic() - 1.0)
            self.answers.append(self._ask(module, client))
        client.close()

    def _ask(self, module: Any, client: Any) -> Answered:
        row = (self.number * 101 + len(self.answers)) % len(self.digits.pixels)
        tensor = module.InferInput("pixels", [1, 64], "FP32")
        tensor.set_data_from_numpy(self.digits.pixels[row : row + 1])
        try:
            result = client.infer("digits", [tensor])
        except InferenceServerException as error:
            return Answered("", str(error), time.monotonic())
        told = result.get_response()
        version = told["model_version"] if isinstance(told, dict) else told.model_version
        is_right = int(result.as_numpy("digit")[0, 0]) == self.digits.found[row]
        return Answered(version, "" if is_right else "another digit", time.monotonic())


@dataclass
class Site:
    """A server of the model, and its clients."""

    server: RunningServer
    clients: list[Client]

    def phase(self) -> str:
        url = f"http://{self.server.http}/v2/models/digits/rollout"
        return str(httpx.get(url, timeout=patience()).json().get("phase"))

    def wait_for(self, phase: str) -> None:
        self.server.wait_until(lambda: self.phase() == phase, f"it is {phase}")

    def wait_for_answers(self, count: int) -> None:
        enough = self.num_answers + count
        self.server.wait_until(lambda: self.num_answers >= enough, f"{count} more answers")

    @property
    def num_answers(self) -> int:
        return sum(len(client.answers) for client in self.clients)

    @property
    def answers(self) -> list[Answered]:
        return sorted((a for c in self.clients for a in c.answers), key=lambda each: each.at_s)


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    return tmp_path / "bad"


@pytest.fixture
def site(serve: Callable[..., RunningServer], tmp_path: Path, digits: Digits) -> Iterator[Site]:
    folder = tmp_path / "models/digits"
    folder.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "traffic.toml").write_text(TRAFFIC)
    drop(folder, 1, digits)
    server = serve(tmp_path / "models", f"--state-dir={tmp_path / 'state'}")
    # As many as this machine can take now, or all of them would only show that it is slow.
    rate = RATE / patience(1.0) / NUM_CLIENTS
    clients = [Client(server, digits, number, rate) for number in range(NUM_CLIENTS)]
    with ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        yield Site(server, clients)


def test_a_canary_that_turns_bad_is_gone_within_a_second(
    site: Site, tmp_path: Path, digits: Digits, flag: Path
) -> None:
    drop(tmp_path / "models/digits", 2, digits, str(flag))
    site.wait_for("running")
    site.wait_for_answers(600)
    flag.touch()
    site.wait_for("rolled back")
    site.wait_for_answers(300)
    answers = site.answers
    bad = [each for each in answers if each.fault]
    rate = len(answers) / (answers[-1].at_s - answers[0].at_s)
    back_s = bad[-1].at_s - bad[0].at_s
    asked_for = RATE / patience(1.0)
    print(
        f"{rate:.0f} answers a second of {asked_for:.0f} asked for; {len(bad)} of {len(answers)} "
        f"failed, all of the canary, within {back_s:.3f} s"
    )

    # Only the canary says that: nobody whom the stable version was to answer went without.
    assert {FAULT in each.fault for each in bad} == {True}
    assert {each.version for each in answers if not each.fault} == {"1", "2"}
    assert back_s <= patience(1.0)
