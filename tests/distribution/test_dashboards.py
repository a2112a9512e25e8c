"""The chart's dashboards and alerts, asked of a real Prometheus that reads a server under load."""

import json
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from house_rules import ROOT
from llm_site import write_tiny_llm
from nginx_site import free_ports
from patience import patience
from programs import program
from serving import RunningServer, write_adder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHART = ROOT / "docker/chart"
BOARDS = {path.stem: path for path in sorted((CHART / "dashboards").glob("*.json"))}
POLICY = "[rollout]\nsteps = [20, 100]\nbake_s = {}\nmin_samples = 5\n"
INPUT = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [0]}]}


def expressions() -> list[tuple[str, str]]:
    """Of each panel's lines: the dashboard and the expression, with what Grafana puts in."""
    found = []
    for name, path in BOARDS.items():
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "5s")
                found.append((name, re.sub(r"\$(model|namespace)", ".*", text)))
    return found


class Load:
    """Clients of each model, until it is over."""

    def __init__(self, server: RunningServer) -> None:
        self._url = f"http://{server.http}"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        prompt = {"model": "tiny", "prompt": "once upon a time", "max_tokens": 4}
        with httpx.Client(base_url=self._url, timeout=patience()) as client:
            while not self._is_over.wait(0.01):
                for model in ("rolled", "rolling"):
                    client.post(f"/v2/models/{model}/infer", json=INPUT)
                client.post("/v2/models/rolled/infer", json={})
                client.post("/v1/completions", json=prompt)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One roll-out has ended, one is at its first step, and requests come."""
    repository = tmp_path_factory.mktemp("models")
    write_tiny_llm(repository, "tiny", "")
    for name, bake_s in (("rolled", 0.2), ("rolling", 600)):
        write_adder(repository, name, 1)
        (repository / name / "traffic.toml").write_text(POLICY.format(bake_s))
    running = serve(repository, f"--rollout-state={tmp_path_factory.mktemp('state')}")
    with Load(running):
        for name in ("rolled", "rolling"):
            write_adder(repository, name, 2)
        running.wait_until(
            lambda: 'trivet_rollouts_ended_total{model="rolled"' in running.metrics(), "one ended"
        )
        yield running


@pytest.fixture(scope="module")
def prometheus(
    server: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], list[Any]]]:
    """Asks one that reads the server as the chart has it read, five times a second."""
    folder = tmp_path_factory.mktemp("prometheus")
    (port,) = free_ports(1)
    labels = {"namespace": "serving", "pod": "release-trivet-models-0"}
    config = {
        "global": {"scrape_interval": "200ms"},
        "rule_files": [str(CHART / "rules.yaml")],
        "scrape_configs": [
            {
                "job_name": "trivet",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{server.metrics_port}"], "labels": labels}
                ],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"), f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip

    def asked(query: str) -> list[Any]:
        where = urllib.parse.urlencode({"query": query})
        url = f"http://127.0.0.1:{port}/api/v1/query?{where}"
        try:
            with urllib.request.urlopen(url, timeout=patience(10)) as answer:
                return list(json.load(answer)["data"]["result"])
        except OSError:
            return []

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        server.wait_until(
            lambda: bool(asked("rate(nv_inference_request_success[5s]) > 0")), "it has read twice"
        )
        yield asked
        started.kill()


@pytest.mark.parametrize(("board", "expression"), expressions())
def test_every_line_of_every_panel_has_data(
    server: RunningServer, prometheus: Callable[[str], list[Any]], board: str, expression: str
) -> None:
    server.wait_until(lambda: bool(prometheus(expression)), f"{board}: {expression} has data")


def test_promtool_takes_the_alerts(tmp_path: Path) -> None:
    for command in (["check", "rules"], ["test", "rules"]):
        path = CHART / "rules.yaml"
        if command[0] == "test":
            path = tmp_path / "test.yaml"
            path.write_text(yaml.safe_dump(alerts_that_fire()))
        checked = subprocess.run(
            [program("promtool"), *command, path], text=True, capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    given = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return {"series": f"{name}{{{given}}}", "values": values}


def alerts_that_fire() -> dict[str, Any]:
    """Half of the requests to `bad` fail, and a version of it was taken back; `good` is well."""
    where = {"namespace": "serving", "pod": "p", "version": "1"}
    failure, success = "nv_inference_request_failure", "nv_inference_request_success"
    given = [
        series(failure, "0+60x20", model="bad", reason="OTHER", **where),
        series(success, "0+60x20", model="bad", **where),
        series(failure, "0x20", model="good", reason="OTHER", **where),
        series(success, "0+60x20", model="good", **where),
        series("trivet_rollouts_ended_total", "0x9 1x10", model="bad", verdict="rolled back"),
    ]

    def fires(alert: str, labels: dict[str, str], summary: str) -> dict[str, Any]:
        expected = {
            "exp_labels": {"severity": "warning", **labels},
            "exp_annotations": {"summary": summary},
        }
        return {"eval_time": "15m", "alertname": alert, "exp_alerts": [expected]}

    return {
        "rule_files": [str(CHART / "rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "alert_rule_test": [
                    fires("TrivetRequestsFail", {"namespace": "serving", "model": "bad"},
                          "50% of the requests to bad fail"),
                    fires("TrivetRolledBack", {"model": "bad", "verdict": "rolled back"},
                          "A version of bad was taken back: trivet rollout history bad"),
                ],
            }
        ],
    }  # fmt: skip
