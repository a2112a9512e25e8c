"""Writes the three Grafana dashboards of the chart: models, language models, roll-outs.

Run as a script it writes docker/chart/dashboards/*.json; a test runs it and every expression.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("chart") / "dashboards"
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_PODS = 'namespace=~"$namespace"'
_MODEL = 'model=~"$model",namespace=~"$namespace"'
_LANGUAGE = 'model_name=~"$model",namespace=~"$namespace"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: what it shows, in which of Grafana's units, each line's expression and legend."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def _rate(metric: str, by: str, where: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str, where: str) -> str:
    return f"histogram_quantile({share}, {_rate(f'{metric}_bucket', f'{by}, le', where)})"


def _quantiles(metric: str, by: str, where: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (_quantile(share, metric, by, where), f"{{{{{by}}}}} p{share * 100:g}")
        for share in (0.5, 0.99)
    )


def _stage(name: str, title: str) -> Panel:
    metric = f"trivet_inference_{name}_duration_seconds"
    return Panel(title, "s", _quantiles(metric, "model", _MODEL))


MODELS = (
    Panel(
        "Requests a second",
        "reqps",
        (
            (_rate("nv_inference_request_success", "model", _MODEL), "{{model}} answered"),
            (_rate("nv_inference_request_failure", "model", _MODEL), "{{model}} failed"),
        ),
    ),
    Panel(
        "Failures by reason",
        "reqps",
        ((_rate("nv_inference_request_failure", "model, reason", _MODEL), "{{model}} {{reason}}"),),
    ),
    Panel(
        "Waiting",
        "short",
        ((f"sum by (model) (nv_inference_pending_request_count{{{_MODEL}}})", "{{model}}"),),
    ),
    _stage("request", "Time of a request"),
    _stage("queue", "of it in the queue"),
    _stage("compute_infer", "of it computing"),
    Panel(
        "Items a batch",
        "short",
        (
            (
                _rate("nv_inference_count", "model", _MODEL)
                + " / "
                + _rate("nv_inference_exec_count", "model", _MODEL),
                "{{model}}",
            ),
        ),
    ),
    Panel(
        "CPU and event loop",
        "s",
        (
            (
                _rate("process_cpu_seconds_total", "pod", _PODS),
                "{{pod}} CPU",
            ),
            (f"trivet_event_loop_lateness_seconds{{{_PODS}}}", "{{pod}} loop late at worst"),
        ),
    ),
    Panel(
        "Memory of the server",
        "bytes",
        ((f"process_resident_memory_bytes{{{_PODS}}}", "{{pod}}"),),
    ),
    Panel(
        "Time to load",
        "s",
        (
            (
                f"max by (model, version) (nv_model_load_duration_secs{{{_MODEL}}})",
                "{{model}} {{version}}",
            ),
        ),
    ),
)

LANGUAGE_MODELS = (
    Panel(
        "Time to first token",
        "s",
        _quantiles("vllm:time_to_first_token_seconds", "model_name", _LANGUAGE),
    ),
    Panel(
        "Between two tokens",
        "s",
        _quantiles("vllm:inter_token_latency_seconds", "model_name", _LANGUAGE),
    ),
    Panel(
        "Time of a request",
        "s",
        _quantiles("vllm:e2e_request_latency_seconds", "model_name", _LANGUAGE),
    ),
    Panel(
        "Tokens a second",
        "short",
        (
            (
                _rate("vllm:generation_tokens_total", "model_name", _LANGUAGE),
                "{{model_name}} generated",
            ),
            (
                _rate("vllm:prompt_tokens_total", "model_name", _LANGUAGE),
                "{{model_name}} of prompts",
            ),
        ),
    ),
    Panel(
        "Requests",
        "short",
        (
            (
                f"sum by (model_name) (vllm:num_requests_running{{{_LANGUAGE}}})",
                "{{model_name}} running",
            ),
            (
                f"sum by (model_name) (vllm:num_requests_waiting{{{_LANGUAGE}}})",
                "{{model_name}} waiting",
            ),
        ),
    ),
    Panel(
        "Cache in use",
        "percentunit",
        (
            (
                f"max by (model_name, pod) (vllm:kv_cache_usage_perc{{{_LANGUAGE}}})",
                "{{model_name}} {{pod}}",
            ),
        ),
    ),
    Panel(
        "Prompt tokens found in the cache",
        "percentunit",
        (
            (
                _rate("vllm:prefix_cache_hits_total", "model_name", _LANGUAGE)
                + " / "
                + _rate("vllm:prefix_cache_queries_total", "model_name", _LANGUAGE),
                "{{model_name}}",
            ),
        ),
    ),
    Panel(
        "How requests end",
        "reqps",
        (
            (
                _rate("vllm:request_success_total", "model_name, finished_reason", _LANGUAGE),
                "{{model_name}} {{finished_reason}}",
            ),
        ),
    ),
    Panel(
        "Set back for want of cache",
        "short",
        ((_rate("vllm:num_preemptions_total", "model_name", _LANGUAGE), "{{model_name}}"),),
    ),
)

ROLLOUTS = (
    Panel(
        "Traffic of the candidate",
        "percent",
        (
            (
                f"max by (model, version) (trivet_rollout_percent{{{_MODEL}}})",
                "{{model}} {{version}}",
            ),
        ),
    ),
    Panel(
        "Requests by arm",
        "reqps",
        (
            (
                _rate("trivet_arm_requests_total", "model, arm, version", _MODEL),
                "{{model}} {{arm}} ({{version}})",
            ),
        ),
    ),
    Panel(
        "Errors by arm",
        "percentunit",
        (
            (
                _rate("trivet_arm_errors_total", "model, arm, version", _MODEL)
                + " / "
                + _rate("trivet_arm_requests_total", "model, arm, version", _MODEL),
                "{{model}} {{arm}} ({{version}})",
            ),
        ),
    ),
    Panel(
        "Time of a request by arm, p99",
        "s",
        (
            (
                _quantile(0.99, "trivet_arm_request_duration_seconds", "model, arm", _MODEL),
                "{{model}} {{arm}}",
            ),
        ),
    ),
    Panel(
        "Roll-outs that have ended",
        "short",
        (
            (
                f"sum by (model, verdict) (trivet_rollouts_ended_total{{{_MODEL}}})",
                "{{model}} {{verdict}}",
            ),
        ),
    ),
)

DASHBOARDS = {
    "models": ("trivet: models", "nv_inference_request_success", "model", MODELS),
    "language-models": (
        "trivet: language models",
        "vllm:num_requests_running",
        "model_name",
        LANGUAGE_MODELS,
    ),
    "rollouts": ("trivet: roll-outs", "trivet_arm_requests_total", "model", ROLLOUTS),
}
"""By file: the title, the metric and label that have the models' names, and the panels."""


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _drawn(index: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(index, _COLUMNS)
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.lines)
        ],
    }


def dashboard(name: str) -> dict[str, Any]:
    """One as Grafana imports it."""
    title, metric, label, panels = DASHBOARDS[name]
    return {
        "uid": f"trivet-{name}",
        "title": title,
        "tags": ["trivet"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                _variable("namespace", f"label_values({metric}, namespace)"),
                _variable("model", f"label_values({metric}, {label})"),
            ]
        },
        "panels": [_drawn(index, panel) for index, panel in enumerate(panels)],
    }


def written(name: str) -> str:
    """Its file."""
    return json.dumps(dashboard(name), indent=1) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in DASHBOARDS:
        (FOLDER / f"{each}.json").write_text(written(each), encoding="utf-8")
