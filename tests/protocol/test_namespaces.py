"""--model-namespacing: two repositories may hold a model of the same name, and do not meet."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from patience import patience
from serving import RunningServer, adder_bytes, write_adder
from tritonclient.utils import InferenceServerException

Serve = Callable[..., RunningServer]

ENSEMBLE = """
platform: "ensemble"
ensemble_scheduling {{
  step [ {{ model_name: "{step}" model_version: -1 {more}
    input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }} }} ]
}}
"""

ASKING = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._ask(request) for request in requests]

    def _ask(self, request):
        (x,) = request.inputs()
        asked = pb_utils.InferenceRequest(
            model_name=MODEL, inputs=[x], requested_output_names=["y"]
        )
        answer = asked.exec()
        if answer.has_error():
            return pb_utils.InferenceResponse(error=answer.error())
        return pb_utils.InferenceResponse(answer.output_tensors())
"""

ASKING_CONFIG = """
backend: "python"
input [{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 1 ] }]
parameters { key: "isolation" value { string_value: "none" } }
"""


def write_ensemble(repository: Path, name: str, step: str, more: str = "") -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(ENSEMBLE.format(step=step, more=more))


def write_asking(repository: Path, name: str, model: str) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(ASKING_CONFIG)
    (folder / "1" / "model.py").write_text(f"MODEL = {model!r}\n{ASKING}")


class Site:
    """Two repositories, one that adds and one that adds ten times as much."""

    def __init__(self, root: Path) -> None:
        self.a, self.b = root / "a", root / "b"
        for repository, amount in ((self.a, 1), (self.b, 10)):
            repository.mkdir()
            write_adder(repository, "add", 1, amount=amount)

    def start(self, serve: Serve, *flags: str) -> RunningServer:
        self.server = serve(self.a, f"--model-repository={self.b}", "--model-namespacing", *flags)
        return self.server

    def ask(self, model: str, client: ModuleType = grpcclient) -> int:
        """What a model adds."""
        is_http = client is httpclient
        address = self.server.http if is_http else self.server.grpc
        given = client.InferInput("x", [1], "FP32")
        given.set_data_from_numpy(np.zeros(1, np.float32))
        with client.InferenceServerClient(address) as connection:
            return int(connection.infer(model, [given]).as_numpy("y")[0])

    def adds(self, model: str) -> int | None:
        """The same; None while nothing answers."""
        try:
            return self.ask(model)
        except InferenceServerException:
            return None

    def becomes(self, model: str, amount: int | None) -> None:
        self.server.wait_until(lambda: self.adds(model) == amount, f"{model} adds {amount}")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("client", [httpclient, grpcclient])
def test_a_name_in_one_repository_is_enough_and_one_in_two_is_ambiguous(
    site: Site, serve: Serve, client: ModuleType
) -> None:
    write_adder(site.a, "only_a", 1, amount=2)
    write_adder(site.b, "only_b", 1, amount=20)
    site.start(serve)
    assert [site.ask(name, client) for name in ("only_a", "only_b")] == [2, 20]
    with pytest.raises(InferenceServerException) as caught:
        site.ask("add", client)
    told = caught.value.message()
    assert "ambiguity" in told
    assert f"'{site.a}'" in told
    assert f"'{site.b}'" in told


@pytest.mark.parametrize("client", [httpclient, grpcclient])
def test_a_client_may_say_which_of_two_it_means(
    site: Site, serve: Serve, client: ModuleType
) -> None:
    site.start(serve)
    assert [site.ask(f"{each}::add", client) for each in (site.a, site.b)] == [1, 10]


def test_without_the_flag_a_name_in_two_repositories_is_refused(site: Site, serve: Serve) -> None:
    server = serve(site.a, f"--model-repository={site.b}", "--exit-on-error=false", wait=False)
    server.wait_until(lambda: ("add", "") in indexed(server), "the model was known")
    assert "is in two repositories" in indexed(server)["add", ""]["reason"]


def indexed(server: RunningServer) -> dict[tuple[str, str], dict[str, str]]:
    try:
        return server.index()
    except OSError:
        return {}


def test_ensembles_take_their_steps_from_their_own_repository(site: Site, serve: Serve) -> None:
    for repository, name in ((site.a, "sum_a"), (site.b, "sum_b")):
        write_ensemble(repository, name, "add")
        write_ensemble(repository, "sum", "add")
    write_ensemble(site.a, "outer", "sum")
    site.start(serve)
    assert [site.ask(name) for name in ("sum_a", "sum_b", "outer")] == [1, 10, 1]
    with pytest.raises(InferenceServerException, match="ambiguity"):
        site.ask("sum")
    config = requests.get(
        f"http://{site.server.http}/v2/models/sum_b/config", timeout=patience()
    ).json()
    (step,) = config["ensemble_scheduling"]["step"]
    assert (step["model_namespace"], step["model_name"]) == (str(site.b), "add")


def test_a_step_goes_elsewhere_where_its_own_repository_has_no_such_model(
    site: Site, serve: Serve, tmp_path: Path
) -> None:
    third = tmp_path / "third"
    third.mkdir()
    write_adder(site.b, "only_b", 1, amount=20)
    write_ensemble(third, "unique", "only_b")
    write_ensemble(third, "named", "add", f'model_namespace: "{site.b}"')
    write_ensemble(third, "torn", "add")
    # Its own repository comes first, as in Triton.
    write_ensemble(site.a, "own", "add", f'model_namespace: "{site.b}"')
    server = site.start(serve, f"--model-repository={third}", "--exit-on-error=false",
                        "--strict-readiness=false")  # fmt: skip
    assert [site.ask(name) for name in ("unique", "named", "own")] == [20, 10, 1]
    reason = server.index()["torn", "1"]["reason"]
    assert "ambiguity" in reason
    assert f"'{site.a}'" in reason


def test_python_models_ask_in_their_own_repository_first(site: Site, serve: Serve) -> None:
    write_adder(site.b, "only_b", 1, amount=20)
    for repository, name in ((site.a, "from_a"), (site.b, "from_b")):
        write_asking(repository, name, "add")
        write_asking(repository, "asking", "add")
    write_asking(site.a, "elsewhere", "only_b")
    write_asking(site.a, "by_key", f"{site.b}::asking")
    site.start(serve)
    asked = [site.ask(name) for name in ("from_a", "from_b", "elsewhere", "by_key")]
    assert asked == [1, 10, 20, 10]


def test_models_of_one_name_may_ask_each_other_but_none_itself(site: Site, serve: Serve) -> None:
    write_asking(site.a, "chain", f"{site.b}::chain")
    write_asking(site.b, "chain", "add")
    write_asking(site.a, "circle", "circle")
    site.start(serve)
    assert site.ask(f"{site.a}::chain") == 10
    with pytest.raises(InferenceServerException, match="on its own behalf"):
        site.ask("circle")


def test_a_reload_and_a_removal_of_one_do_not_touch_the_other(site: Site, serve: Serve) -> None:
    write_ensemble(site.a, "sum_a", "add")
    write_ensemble(site.b, "sum_b", "add")
    server = site.start(serve)
    write_adder(site.b, "add", 2, amount=30)
    site.becomes("sum_b", 30)
    assert site.ask("sum_a") == 1
    readied = [line for line in server.output if "is ready" in line]
    assert sum(f"'{site.a}::add' version 1 is ready" in line for line in readied) == 1
    assert sum(f"'{site.a}::sum_a' version 1 is ready" in line for line in readied) == 1
    shutil.move(site.a / "add", site.a.parent / "away")
    # What is left is the only one of its name, for clients and ensembles.
    site.becomes("add", 30)
    site.becomes("sum_a", 30)
    assert site.ask("sum_b") == 30
    shutil.move(site.a.parent / "away", site.a / "add")
    site.becomes("sum_a", 1)
    site.becomes("add", None)
    assert site.ask("sum_b") == 30


def test_a_broken_upload_of_one_leaves_the_other_alone(site: Site, serve: Serve) -> None:
    site.start(serve)
    (site.b / "add" / "2").mkdir()
    (site.b / "add" / "2" / "model.onnx").write_bytes(b"swordfish")
    site.server.wait_until(
        lambda: any("did not load" in line for line in site.server.output), "the load failed"
    )
    assert [site.ask(f"{each}::add") for each in (site.a, site.b)] == [1, 10]


@pytest.mark.parametrize("client", [httpclient, grpcclient])
def test_load_and_unload_mean_all_of_a_name_or_the_one_that_is_said(
    site: Site, serve: Serve, client: Any
) -> None:
    server = site.start(serve, "--model-control-mode=explicit")
    with client.InferenceServerClient(
        server.http if client is httpclient else server.grpc
    ) as control:
        one, other = f"{site.a}::add", f"{site.b}::add"
        control.load_model(one)
        assert site.ask("add") == 1
        control.load_model(other)
        assert site.adds("add") is None
        control.unload_model(one)
        assert site.ask("add") == 10
        control.load_model("add")
        assert [site.ask(one), site.ask(other)] == [1, 10]
        (site.a / "add" / "1" / "model.onnx").write_bytes(adder_bytes(3))
        control.load_model(one)
        assert [site.ask(one), site.ask(other)] == [3, 10]
        control.unload_model("add")
        assert [site.adds(name) for name in ("add", one, other)] == [None] * 3
        with pytest.raises(InferenceServerException, match="failed to poll"):
            control.load_model(f"{site.a}::nothing")


def test_loading_an_ensemble_loads_the_steps_of_its_own_repository(
    site: Site, serve: Serve
) -> None:
    write_ensemble(site.a, "sum_a", "add")
    write_ensemble(site.b, "sum_b", "add")
    server = site.start(serve, "--model-control-mode=explicit")
    with httpclient.InferenceServerClient(server.http) as control:
        control.load_model("sum_b")
        assert [site.ask("sum_b"), site.ask("add")] == [10, 10]
        control.load_model("sum_a")
        assert [site.ask("sum_a"), site.ask("sum_b"), site.adds("add")] == [1, 10, None]
        control.unload_model("sum_a", unload_dependents=True)
        assert [site.ask("sum_b"), site.ask("add")] == [10, 10]


def test_an_ensemble_that_cannot_be_read_is_not_read_again_and_again(
    site: Site, serve: Serve
) -> None:
    """When its steps are other models than they were."""
    for name in ("sum_a", "sum_b"):
        write_ensemble(site.a, name, "add")
    server = site.start(serve)
    for name in ("sum_a", "sum_b"):
        (site.a / name / "config.pbtxt").write_text("swordfish")
    server.wait_until(lambda: len(failures(server)) >= 2, "both reloads failed")
    shutil.move(site.a / "add", site.a.parent / "away")
    site.becomes("add", 10)
    write_adder(site.a, "probe", 1, amount=5)
    site.becomes("probe", 5)
    assert len(failures(server)) <= 6


def failures(server: RunningServer) -> list[str]:
    return [line for line in server.output if "did not load" in line]


def test_what_is_loaded_at_start_is_all_of_a_name_with_its_own_steps(
    site: Site, serve: Serve
) -> None:
    write_adder(site.b, "other", 1, amount=20)
    write_ensemble(site.a, "sum_a", "add")
    flags = ["--model-control-mode=explicit", "--load-model=sum_a", "--load-model=other"]
    site.start(serve, *flags)
    assert [site.ask(name) for name in ("sum_a", "add", "other")] == [1, 1, 20]
    site.start(serve, "--model-control-mode=explicit", "--load-model=add")
    assert [site.ask(f"{each}::add") for each in (site.a, site.b)] == [1, 10]


def test_ensembles_that_are_loaded_by_request_follow_their_steps(site: Site, serve: Serve) -> None:
    write_ensemble(site.a, "sum_a", "add")
    write_ensemble(site.b, "sum_b", "add")
    away = site.a.parent / "away"
    shutil.move(site.a / "add", away)
    server = site.start(serve, "--model-control-mode=explicit")
    with httpclient.InferenceServerClient(server.http) as control:
        for name in ("sum_a", "sum_b"):
            control.load_model(name)
        assert [site.ask(name) for name in ("sum_a", "sum_b", "add")] == [10, 10, 10]
        shutil.move(away, site.a / "add")
        control.load_model("sum_a")
        assert [site.ask("sum_a"), site.ask("sum_b"), site.adds("add")] == [1, 10, None]


@pytest.mark.parametrize("client", [httpclient, grpcclient])
def test_what_is_told_of_models_is_told_of_the_one_that_is_said(
    site: Site, serve: Serve, client: Any
) -> None:
    server = site.start(serve)
    site.ask(f"{site.b}::add")
    as_json = {} if client is httpclient else {"as_json": True}
    with client.InferenceServerClient(
        server.http if client is httpclient else server.grpc
    ) as asking:
        counts = []
        for place in (site.a, site.b):
            key = f"{place}::add"
            assert asking.is_model_ready(key)
            assert asking.get_model_metadata(key, **as_json)["name"] == "add"
            assert asking.get_model_config(key, **as_json)
            (told,) = asking.get_inference_statistics(key, **as_json)["model_stats"]
            counts.append(int(told.get("inference_count", 0)))
        assert counts == [0, 1]
        assert not asking.is_model_ready("add")
        with pytest.raises(InferenceServerException, match="ambiguity"):
            asking.get_inference_statistics("add")


def test_a_model_that_is_sent_stands_for_the_one_of_a_repository(site: Site, serve: Serve) -> None:
    server = site.start(serve, "--model-control-mode=explicit", "--allow-model-upload")
    sent = {"config": '{"backend": "onnxruntime"}', "files": {"file:1/model.onnx": adder_bytes(7)}}
    with httpclient.InferenceServerClient(server.http) as control:
        control.load_model("add")
        with pytest.raises(InferenceServerException, match="ambiguity"):
            control.load_model("add", **sent)
        control.load_model(f"{site.b}::add", **sent)
        assert [site.ask(f"{each}::add") for each in (site.a, site.b)] == [1, 7]
        control.load_model("new", **sent)
        assert site.ask(f"{site.a}::new") == 7
        with pytest.raises(InferenceServerException, match="no model repository of this server"):
            control.load_model("elsewhere::add", **sent)


def test_answers_of_models_of_one_name_are_cached_apart(site: Site, serve: Serve) -> None:
    """Their files are equal; whom they ask is not."""
    for repository in (site.a, site.b):
        write_asking(repository, "asking", "add")
        config = repository / "asking" / "config.pbtxt"
        config.write_text(f"{ASKING_CONFIG} response_cache {{ enable: true }}")
    site.start(serve, "--cache-config=local,size=1048576")
    for _ in range(2):
        assert [site.ask(f"{each}::asking") for each in (site.a, site.b)] == [1, 10]


def test_the_index_has_both_and_metrics_say_which(site: Site, serve: Serve) -> None:
    server = site.start(serve, "--model-control-mode=poll")
    rows = server.post("/v2/repository/index", {})
    assert sorted((row["name"], row["namespace"], row["state"]) for row in rows) == [
        ("add", str(site.a), "READY"),
        ("add", str(site.b), "READY"),
    ]
    site.ask(f"{site.b}::add")
    page = server.metrics()
    for place, count in ((site.a, 0), (site.b, 1)):
        labels = f'{{model="add",namespace="{place}",version="1"}}'
        assert f"nv_inference_request_success{labels} {count}\n" in page


def test_a_key_for_one_name_opens_no_other_in_whatever_repository(
    site: Site, serve: Serve, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    command = [sys.executable, "-m", "trivet", "keys", f"--file={keys}", "create", "team"]
    made = subprocess.run(
        [*command, "--scope=infer", f"--model={site.a}*"], check=True, capture_output=True
    )
    key = made.stdout.decode().split()[-1]
    server = site.start(serve, f"--auth-keys-file={keys}")
    for model in ("add", f"{site.a}::add"):
        answer = requests.post(
            f"http://{server.http}/v2/models/{model}/infer",
            json={"inputs": []},
            headers={"Authorization": f"Bearer {key}"},
            timeout=patience(),
        )
        assert answer.status_code == 403
