"""Prometheus itself reads our metrics page and the config that we ship for it."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as httpclient
import yaml
from house_rules import ROOT
from nginx_site import free_ports
from patience import patience
from programs import program
from serving import RunningServer, write_identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., RunningServer], tmp_path_factory: pytest.TempPathFactory
) -> RunningServer:
    repository = tmp_path_factory.mktemp("models")
    write_identity(repository, "identity")
    return serve(repository)


@pytest.fixture
def prometheus(server: RunningServer, tmp_path: Path) -> Iterator[str]:
    """The URL of one that scrapes the server ten times a second."""
    (port,) = free_ports(1)
    config = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text(encoding="utf-8"))
    config["global"]["scrape_interval"] = "100ms"
    (job,) = config["scrape_configs"]
    del job["authorization"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{server.metrics_port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"), f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        yield f"http://127.0.0.1:{port}"
        started.kill()


def asked(url: str, query: str) -> list[Any]:
    """What Prometheus answers to a query; nothing while it starts."""
    full = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(full, timeout=patience(10)) as answer:
            return list(json.load(answer)["data"]["result"])
    except OSError:
        return []


def test_promtool_has_no_complaint_about_our_own_names(server: RunningServer) -> None:
    own = [line for line in server.metrics().splitlines(keepends=True) if "trivet_" in line]
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input="".join(own),
        text=True,
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_takes_the_config_that_we_ship() -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "config", "--syntax-only", ROOT / "docker/prometheus.yml"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_prometheus_counts_the_requests_that_were_made(
    server: RunningServer, prometheus: str
) -> None:
    given = httpclient.InferInput("INPUT0", [1, 16], "FP32")
    given.set_data_from_numpy(np.zeros((1, 16), np.float32))
    with httpclient.InferenceServerClient(server.http) as client:
        for _ in range(7):
            client.infer("identity", [given])
    query = 'nv_inference_request_success{model="identity"} == 7'
    server.wait_until(lambda: bool(asked(prometheus, query)), "scraped")
    assert asked(prometheus, 'up{job="trivet"}')[0]["value"][1] == "1"
