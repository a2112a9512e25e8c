"""The chart in the tree: its dashboards as they are written, flags that there are, one schema."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from house_rules import ROOT

from trivet.server.settings import rows

CHART = ROOT / "docker/chart"


@pytest.mark.parametrize(
    "path", sorted((CHART / "dashboards").glob("*.json")), ids=lambda p: p.stem
)
def test_dashboards_are_as_they_are_written(path: Path) -> None:
    command = "import sys, dashboards; sys.stdout.write(dashboards.written(sys.argv[1]))"
    written = subprocess.run(
        [sys.executable, "-c", command, path.stem],
        cwd=ROOT / "docker", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert path.read_text(encoding="utf-8") == written.stdout, "run python docker/dashboards.py"


def test_the_pod_gives_flags_that_there_are() -> None:
    template = (CHART / "templates/_pod.tpl").read_text(encoding="utf-8")
    given = set(re.findall(r"(--[a-z-]+)=", template))
    assert "--spot-notice" in given
    assert given <= {row.flag for row in rows()}


def test_values_and_schema_name_the_same_keys() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert set(values) | {"global"} == set(schema["properties"])
    group = schema["definitions"]["group"]["properties"]
    assert set(values["defaults"]) == set(group)
    for name in ("repository", "gpu", "autoscaling"):
        assert set(values["defaults"][name]) == set(group[name]["properties"])


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
