"""Metrics that Python models make up, on the server's page: from its process and from theirs."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from documents import ROOT
from nested_models import body, path, write_python
from patience import patience
from serving import RunningServer, start_server

from trivet.server.metrics.custom import OWN_PREFIXES

MODEL = '''
import os
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.hits = pb_utils.MetricFamily(
            name="hits", description="How often", kind=pb_utils.MetricFamily.COUNTER)
        self.hit = self.hits.Metric(labels={"of": "NAME"})
        self.level = pb_utils.MetricFamily(
            name="level_NAME", description="How high", kind=pb_utils.MetricFamily.GAUGE)
        self.here = self.level.Metric()
        self.times = pb_utils.MetricFamily(
            name="times_NAME", description="How long", kind=pb_utils.MetricFamily.HISTOGRAM)
        self.took = self.times.Metric(labels={"a": "b"}, buckets=[1, 10])

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        word = pb_utils.get_input_tensor_by_name(request, "COMMAND").as_numpy()[0].decode()
        x = float(pb_utils.get_input_tensor_by_name(request, "x").as_numpy()[0])
        try:
            y = getattr(self, "do_" + word)(x)
        except pb_utils.TritonModelException as error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.array([y], np.float32))])

    def do_hit(self, x):
        self.hit.increment(x)
        self.here.set(2 * x)
        self.took.observe(x)
        return self.hit.value()

    def do_drop(self, x):
        del self.took, self.times
        return 0

    def do_twin(self, x):
        """The same family and labels are the same counter."""
        twin = pb_utils.MetricFamily("hits", "How often", pb_utils.MetricFamily.COUNTER)
        twin.Metric({"of": "NAME"}).increment(x)
        return self.hit.value()

    def do_clash(self, x):
        pb_utils.MetricFamily("hits", "How often", pb_utils.MetricFamily.GAUGE)

    def do_own(self, x):
        pb_utils.MetricFamily("nv_inference_count", "Mine", pb_utils.MetricFamily.COUNTER)

    def do_pid(self, x):
        return os.getpid()

    def do_thread(self, x):
        found = []

        def make():
            family = pb_utils.MetricFamily("threads", "", pb_utils.MetricFamily.GAUGE)
            metric = family.Metric()
            metric.set(x)
            found.append(metric.value())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return found[0]
'''
CLASHING = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.own = pb_utils.MetricFamily("own", "", pb_utils.MetricFamily.GAUGE)
        self.metric = self.own.Metric()
        pb_utils.MetricFamily("hits", "Something else", pb_utils.MetricFamily.COUNTER)

    def execute(self, requests):
        return []
"""


@pytest.fixture(params=["process", "none"])
def isolation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def repository(tmp_path: Path, isolation: str) -> Path:
    for name in ("one", "two"):
        write_python(tmp_path, name, MODEL.replace("NAME", name), isolation=isolation)
    write_python(tmp_path, "clashing", CLASHING, isolation=isolation)
    return tmp_path


@pytest.fixture
def server(repository: Path) -> Iterator[RunningServer]:
    flags = [f"--load-model={name}" for name in ("one", "two")]
    opened = start_server(repository, "--model-control-mode=explicit", *flags)
    yield opened
    opened.end()


def ask(server: RunningServer, model: str, command: str, x: float = 0) -> Any:
    answer = requests.post(path(server, model), body([x], command), timeout=patience()).json()
    return answer["error"] if "error" in answer else answer["outputs"][0]["data"][0]


def control(server: RunningServer, model: str, what: str) -> requests.Response:
    url = f"http://{server.http}/v2/repository/models/{model}/{what}"
    return requests.post(url, timeout=patience())


def test_values_are_on_the_page_until_their_model_is_unloaded(server: RunningServer) -> None:
    assert ask(server, "one", "hit", 5) == 5
    assert ask(server, "one", "hit", 0.5) == 5.5
    page = server.metrics()
    for line in (
        "# HELP hits How often",
        "# TYPE hits counter",
        'hits{of="one"} 5.5',
        'hits{of="two"} 0',
        "level_one 1",
        "# TYPE times_one histogram",
        'times_one_bucket{a="b",le="1"} 1',
        'times_one_bucket{a="b",le="10"} 2',
        'times_one_sum{a="b"} 5.5',
    ):
        assert f"{line}\n" in page

    assert control(server, "one", "unload").status_code == 200
    server.wait_until(lambda: "level_one" not in server.metrics(), "without its metrics")
    page = server.metrics()
    assert 'of="one"' not in page
    assert 'hits{of="two"} 0\n' in page

    control(server, "one", "load")
    assert ask(server, "one", "hit", 1) == 1


def test_what_user_code_lets_go_of_is_gone(server: RunningServer) -> None:
    assert "times_one" in server.metrics()
    ask(server, "one", "drop")
    server.wait_until(lambda: "times_one" not in server.metrics(), "without it")
    assert "times_two" in server.metrics()


def test_the_same_name_is_the_same_metric_or_an_error(server: RunningServer) -> None:
    ask(server, "one", "hit", 2)
    assert ask(server, "one", "twin", 3) == 5
    assert "is there already, as a counter" in ask(server, "one", "clash")
    assert "are the server's own" in ask(server, "one", "own")
    refused = control(server, "clashing", "load")
    assert refused.status_code == 400
    assert "metric 'hits' is there already" in refused.json()["error"]
    assert ask(server, "one", "hit", 1) == 6
    assert "\nown" not in server.metrics()


def test_threads_make_metrics_in_a_process_of_their_own(
    server: RunningServer, isolation: str
) -> None:
    found = ask(server, "one", "thread", 3)
    if isolation == "process":
        assert found == 3
    else:
        assert isinstance(found, str)  # see docs/models.md


@pytest.mark.parametrize("isolation", ["process"], indirect=True)
def test_a_process_that_dies_takes_its_metrics_along(server: RunningServer) -> None:
    ask(server, "one", "hit", 5)
    os.kill(int(ask(server, "one", "pid")), signal.SIGKILL)
    server.wait_until(lambda: 'hits{of="one"} 0\n' in server.metrics(), "begun anew")
    server.wait_until(lambda: ask(server, "one", "hit", 2) == 2, "counting")


def test_instances_count_together(
    serve: Callable[..., RunningServer], tmp_path: Path, isolation: str
) -> None:
    more = "instance_group { count: 2 }"
    write_python(tmp_path, "m", MODEL.replace("NAME", "m"), isolation=isolation, more=more)
    server = serve(tmp_path)
    assert [ask(server, "m", "hit", 1) for _ in range(4)] == [1, 2, 3, 4]
    assert 'hits{of="m"} 4\n' in server.metrics()


def test_the_document_s_model_does_what_it_says(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    (source,) = re.findall(r"```python\n((?:(?!```).)*MetricFamily.*?)```", text, re.DOTALL)
    write_python(tmp_path, "m", source)
    server = serve(tmp_path)
    answer = requests.post(path(server, "m"), body([1, 2, 3]), timeout=patience()).json()
    assert answer["outputs"][0]["data"] == [1, 2, 3]
    counted = 'my_items_total{stage="read"} 3\n'
    server.wait_until(lambda: counted in server.metrics(), "counted: no answer waits for that")


def test_no_name_of_the_server_s_page_is_open_to_models(server: RunningServer) -> None:
    names = re.findall(r"^# TYPE (\S+)", server.metrics(), re.MULTILINE)
    others = {name for name in names if not name.startswith(OWN_PREFIXES)}
    made = {"hits", *(f"{kind}_{name}" for kind in ("level", "times") for name in ("one", "two"))}
    assert others == made
