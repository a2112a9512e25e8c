"""Renders the chart by Helm's own code and checks what comes, in an environment that has both.

Run as a program: the cases come on standard input as JSON, {name: {values, versions}}; printed is
{name: {objects, error, complaints}}. It imports nothing of ours.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.knative_serving.serving.v1 import Service
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError

_MODELS = {
    "keda.sh/v1alpha1": {"ScaledObject": ScaledObject},
    "serving.knative.dev/v1": {"Service": Service},
    "monitoring.coreos.com/v1": {
        "PrometheusRule": PrometheusRule,
        "ServiceMonitor": ServiceMonitor,
    },
}
_WITHOUT_SCHEMA = {"http.keda.sh/v1alpha1"}
"""No package has it."""


def main() -> None:
    path = sys.argv[1]
    cases = json.load(sys.stdin)
    with Chart.load(path) as chart:
        told = {name: _told(chart, path, case) for name, case in cases.items()}
    json.dump(told, sys.stdout)


def _told(chart: Chart, path: str, case: dict[str, Any]) -> dict[str, Any]:
    values = case["values"]
    try:
        chart.validate_schema(values)
        objects = list(_objects(chart.render(values, name="release", namespace="serving")))
    except HelmError as error:
        return {"objects": [], "error": str(error), "complaints": []}
    found = lint(path, values, strict=True)
    complaints = [each["error"] for each in found["messages"] if each["severity"] > 1]
    complaints += found["errors"]
    for each in objects:
        complaints += _complaints(each, case["versions"])
    return {"objects": objects, "error": "", "complaints": complaints}


def _objects(rendered: dict[str, str]) -> Iterator[dict[str, Any]]:
    for path, text in sorted(rendered.items()):
        if path.endswith(".yaml"):
            yield from (each for each in yaml.safe_load_all(text) if each)


def _complaints(each: dict[str, Any], versions: list[str]) -> Iterator[str]:
    api, kind = each["apiVersion"], each["kind"]
    where = f"{kind} {each['metadata']['name']}"
    if api in _WITHOUT_SCHEMA:
        return
    if api in _MODELS:
        try:
            _MODELS[api][kind].model_validate(_in_thousandths(each))
        except ValueError as error:
            yield f"{where}: {error}"
        return
    for version in versions:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{where} for {version}: {error.message}"


def _in_thousandths(value: Any, key: str = "") -> Any:
    """A copy in which the quantity "1" is written "1000m": these models cannot hold "1"."""
    if isinstance(value, dict):
        return {name: _in_thousandths(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_in_thousandths(each) for each in value]
    return f"{value}000m" if key == "cpu" and str(value).isdigit() else value


if __name__ == "__main__":
    main()
