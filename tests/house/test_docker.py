"""The image's recipe: linted, installs what pyproject.toml says, checks its health as we do."""

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement

from trivet.server.cli import main
from trivet.server.settings import rows

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
RECIPE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    told = subprocess.run(
        [linter, "--failure-threshold=style", "--format=json", DOCKER / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(told.stdout) == [], told.stdout + told.stderr


def listed(extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DOCKER / "requirements.py", extra],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("extra", ["onnx", "llm"])
def test_image_installs_what_pip_would_install_for_the_package(extra: str) -> None:
    """`llm` contains `torch`: extras of extras count."""
    extras = {"onnx": ("onnx",), "llm": ("llm", "torch")}[extra]
    wanted = set()
    for each in map(Requirement, requires("trivet") or []):
        needs = [each.marker is None or each.marker.evaluate({"extra": name}) for name in extras]
        if any(needs) and each.name != "trivet":
            wanted.add(each.name)
    printed = {Requirement(line).name for line in listed(extra).stdout.splitlines()}
    assert {"numpy", "onnxruntime" if extra == "onnx" else "torch"} <= printed
    assert printed == wanted


def test_unknown_extra_is_refused() -> None:
    told = listed("onyx")
    assert told.returncode == 1
    assert "there is no extra 'onyx'" in told.stderr


def test_health_check_is_a_verb_of_ours() -> None:
    (found,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", RECIPE, re.MULTILINE)
    program, verb = json.loads(found)
    assert program == "trivet"
    assert CliRunner().invoke(main, [verb, "--help"]).exit_code == 0


def test_image_does_not_run_as_root() -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", RECIPE, re.MULTILINE)
    assert int(user) >= 1000


def compose() -> dict[str, Any]:
    document = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    services: dict[str, Any] = document["services"]
    return services


def test_composed_server_asks_for_keys_and_is_published_to_this_machine_only() -> None:
    server = compose()["trivet"]
    assert any(flag.startswith("--auth-keys-file=") for flag in server["command"])
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])


def test_composed_server_has_longer_to_stop_than_its_requests() -> None:
    (limit,) = (row.default for row in rows() if row.name == "exit_timeout_secs")
    assert isinstance(limit, float)
    assert int(compose()["trivet"]["stop_grace_period"].removesuffix("s")) > limit


def test_prometheus_reads_the_port_that_the_image_opens() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text(encoding="utf-8"))
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert name in compose()
    assert port in re.findall(r"^EXPOSE (.*)$", RECIPE, re.MULTILINE)[0].split()
