"""The chart: its examples as Helm renders them, valid for each Kubernetes, and what it refuses."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from client_environments import ClientEnvironment, client_environment
from house_rules import ROOT
from patience import patience

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CHART = ROOT / "docker/chart"
VERSIONS = [f"1.{minor}.0" for minor in range(25, 38)]
IMAGE_VOLUMES = [f"1.{minor}.0" for minor in range(31, 38)]
"""Those that know volumes of the kind image."""
EXAMPLES = {path.stem: path for path in sorted((CHART / "values").glob("*.yaml"))}
Told = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> ClientEnvironment:
    return client_environment(tmp_path_factory.mktemp("clients"), "kubernetes")


def rendered(environment: ClientEnvironment, cases: dict[str, Any]) -> Told:
    ended = subprocess.run(
        [environment.programs / "python", Path(__file__).with_name("chart_side.py"), CHART],
        input=json.dumps(cases), capture_output=True, text=True, timeout=patience(400), check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-4000:]
    told: Told = json.loads(ended.stdout)
    return told


@pytest.fixture(scope="module")
def examples(environment: ClientEnvironment) -> Told:
    cases = {
        name: {
            "values": yaml.safe_load(path.read_text(encoding="utf-8")),
            "versions": IMAGE_VOLUMES if name == "model-image" else VERSIONS,
        }
        for name, path in EXAMPLES.items()
    }
    return rendered(environment, cases)


def of(told: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [each for each in told["objects"] if each["kind"] == kind]


def pod_of(told: dict[str, Any]) -> dict[str, Any]:
    (workload, *_) = of(told, "Deployment") or [
        each for each in of(told, "Service") if "knative" in each["apiVersion"]
    ]
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def test_there_are_twelve() -> None:
    assert len(EXAMPLES) == 12


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_is_valid_for_each_kubernetes(examples: Told, name: str) -> None:
    assert examples[name]["error"] == ""
    assert examples[name]["complaints"] == []
    assert examples[name]["objects"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_pods_are_restricted_and_have_time_to_drain(examples: Told, name: str) -> None:
    pod = pod_of(examples[name])
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    flags = dict(each.removeprefix("--").split("=", 1) for each in container["args"])
    if "terminationGracePeriodSeconds" in pod:  # Knative's is its own
        taken = int(flags["drain-delay-secs"]) + int(flags["exit-timeout-secs"]) + 5
        assert pod["terminationGracePeriodSeconds"] == taken


def test_the_startup_probe_waits_for_the_load(examples: Told) -> None:
    (container,) = pod_of(examples["llm-gpu"])["containers"]
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 300 * 1.5
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    taints = [each["key"] for each in pod_of(examples["llm-mig"])["tolerations"]]
    assert taints == ["nvidia.com/gpu"]


def test_no_replicas_are_no_failure_where_there_may_be_none(examples: Told) -> None:
    (scaled,) = of(examples["keda"], "ScaledObject")
    queue = next(each for each in scaled["spec"]["triggers"] if each["name"] == "queue")
    assert queue["metadata"]["query"].endswith(" or vector(0)")


def test_each_group_has_its_own(examples: Told) -> None:
    told = examples["several-groups"]
    replicas = {
        each["metadata"]["labels"]["trivet/group"]: each["spec"]["replicas"]
        for each in of(told, "Deployment")
    }
    assert replicas == {"vision": 3, "text": 2}
    for deployment in of(told, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert "--auth-keys-file=/run/trivet/keys.toml" in container["args"]
        assert "--model-control-mode=explicit" in container["args"]
    assert len(of(told, "PodDisruptionBudget")) == len(of(told, "NetworkPolicy")) == 2


@pytest.mark.parametrize("first", EXAMPLES)
@pytest.mark.parametrize("second", EXAMPLES)
def test_an_upgrade_changes_what_differs_alone(examples: Told, first: str, second: str) -> None:
    """Objects of the same name keep what cannot be changed: the selectors."""

    def fixed(told: dict[str, Any]) -> dict[tuple[str, str], Any]:
        return {
            (each["kind"], each["metadata"]["name"]): each["spec"]["selector"]
            for each in of(told, "Deployment")
        }

    before, after = fixed(examples[first]), fixed(examples[second])
    for key in before.keys() & after.keys():
        assert before[key] == after[key]
    if first == second:
        assert examples[first]["objects"] == examples[second]["objects"]


PLACE = {"repository": {"pvc": "models"}}
REFUSED = {
    "no group": ({}, "name at least one group"),
    "no models": ({"groups": {"a": {}}}, "names 0 places of models"),
    "two places": (
        {"groups": {"a": {"repository": {"pvc": "x", "image": "y"}}}},
        "names 2 places of models",
    ),
    "short grace": (
        {"groups": {"a": {**PLACE, "terminationGracePeriodSeconds": 30}}},
        "30, less than the 40 s that draining takes",
    ),
    "slow spot": (
        {"groups": {"a": {**PLACE, "spot": "gcp"}}},
        "gone 30 s after their notice, and takes 40 s to drain",
    ),
    "gpus": (
        {"groups": {"a": {**PLACE, "gpu": {"count": 9, "perNode": 8}}}},
        "groups.a.gpu.count is 9 and a node has 8 of nvidia.com/gpu",
    ),
    "hpa to zero": (
        {"groups": {"a": {**PLACE, "autoscaling": {"kind": "hpa", "min": 0}}}},
        "nothing would wake a group that has no replica",
    ),
    "keda to zero": (
        {
            "groups": {
                "a": {**PLACE, "autoscaling": {"kind": "keda", "min": 0, "prometheus": "http://p"}}
            }
        },
        "no activationQuery",
    ),
    "keda without prometheus": (
        {"groups": {"a": {**PLACE, "autoscaling": {"kind": "keda"}}}},
        "prometheus is empty",
    ),
    "no hosts": (
        {"groups": {"a": {**PLACE, "autoscaling": {"kind": "keda-http"}}}},
        "hosts is empty",
    ),
    "none for ever": ({"groups": {"a": {**PLACE, "replicas": 0}}}, "nothing would ever serve"),
    "max below min": (
        {"groups": {"a": {**PLACE, "autoscaling": {"kind": "hpa", "min": 3, "max": 2}}}},
        "max is 2, less than min, which is 3",
    ),
    "unknown key": ({"groups": {"a": {**PLACE, "gpus": 1}}}, "'gpus' not allowed"),
    "invented digest": ({"image": {"digest": "sha256:1"}, "groups": {"a": PLACE}}, "digest"),
    "unknown address": ({"groups": {"a": {"repository": {"url": ["ftp://x"]}}}}, "url"),
}


def test_what_does_not_fit_together_is_refused(environment: ClientEnvironment) -> None:
    cases = {name: {"values": values, "versions": []} for name, (values, _) in REFUSED.items()}
    told = rendered(environment, cases)
    for name, (_, text) in REFUSED.items():
        assert text in told[name]["error"], name
        assert told[name]["objects"] == []


LEFT_ON_PURPOSE = {
    "CKV_K8S_11": "CPU has no limit: throttling makes the slowest requests slower",
    "CKV_K8S_35": "credentials of buckets and hubs are variables, as their libraries read them",
    "CKV_K8S_43": "the digest of an image is whose image it is",
}


def test_checkov_finds_nothing_but_what_is_left_on_purpose(examples: Told, tmp_path: Path) -> None:
    checkov = client_environment(tmp_path, "checkov")
    folder = tmp_path / "examples"
    folder.mkdir()
    for name, told in examples.items():
        text = yaml.safe_dump_all(told["objects"])
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    command = ("checkov", "-d", str(folder), "--framework", "kubernetes", "-o", "json")
    found = json.loads(checkov.run(*command, "--soft-fail"))
    assert found["summary"]["passed"] > 500
    failed = {each["check_id"] for each in found["results"]["failed_checks"]}
    assert failed == set(LEFT_ON_PURPOSE)
