"""Groups of models on a real Ray cluster of two nodes: asked, scaled, and parts of it killed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import psutil
import pytest
import tritonclient.grpc
from llm_site import SMALL_LLM, write_small_llm
from patience import patience
from programs import do_without
from ray_site import Clients, Site, write_models

from bench.ray_cluster import HEAD, RayCluster, has_ray

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    if not has_ray():
        do_without("Ray is not installed: pip install 'trivet[ray]'")
    with RayCluster(start_within_s=patience(120)) as opened:
        opened.add_node()
        opened.wait_for(2, patience())
        yield opened


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def models(cluster: RayCluster, repository: Path) -> Site:
    """Two replicas, one a node: each takes three of a node's four processors."""
    site = Site(cluster, "models")
    site.deploy(repository, "--min-replicas=2", "--max-replicas=2", "--cpus=3")
    site.await_replicas(2)
    return site


def servers(site: Site) -> list[psutil.Process]:
    """The processes of `trivet serve` below the cluster's nodes."""
    found = []
    for node in site.cluster.nodes:
        for process in psutil.Process(node.process.pid).children(recursive=True):
            command = process.cmdline()
            if "serve" in command and "trivet" in command:
                found.append(process)
    return found


@pytest.mark.parametrize("host", ["127.0.0.2", "127.0.0.3"])
def test_each_node_answers(models: Site, host: str) -> None:
    models.wait_until(lambda: models.infer(host) == 200, "answered")

    client = tritonclient.grpc.InferenceServerClient(f"{host}:{models.grpc_port}")
    given = tritonclient.grpc.InferInput("INPUT0", [1, 16], "FP32")
    given.set_data_from_numpy(np.ones((1, 16), np.float32))
    assert client.infer("identity", [given]).as_numpy("OUTPUT0").sum() == 16
    client.close()


def test_streams_come_as_they_are_made(models: Site) -> None:
    client = tritonclient.grpc.InferenceServerClient(f"{HEAD}:{models.grpc_port}")
    answers = []
    client.start_stream(lambda result, error: answers.append(error or result))
    values = {"IN": np.arange(3, dtype=np.int32), "DELAY": np.zeros(3, np.uint32)}
    values["WAIT"] = np.zeros(1, np.uint32)
    kinds = {np.dtype(np.int32): "INT32", np.dtype(np.uint32): "UINT32"}
    inputs = [tritonclient.grpc.InferInput(n, v.shape, kinds[v.dtype]) for n, v in values.items()]
    for each in inputs:
        each.set_data_from_numpy(values[each.name()])
    client.async_stream_infer("repeat_int32", inputs)
    models.wait_until(lambda: len(answers) >= 3, "streamed")
    client.stop_stream()
    client.close()

    assert [int(each.as_numpy("OUT")[0]) for each in answers[:3]] == [0, 1, 2]


@pytest.mark.parametrize("part", ["server", "actor"])
def test_a_killed_replica_takes_along_what_it_computes_and_nothing_else(
    models: Site, part: str
) -> None:
    clients = Clients(models, "slow")
    with clients.asking():
        clients.more(20)
        server = servers(models)[0]
        victim = server if part == "server" else server.parent()
        assert victim is not None
        victim.kill()
        clients.more(50)
        models.wait_until(lambda: len(servers(models)) == 2, "replaced")
        models.await_replicas(2)
        clients.more(20)

    assert clients.failed <= clients.count // 2 + 1, clients.outcomes
    assert set(clients.outcomes) <= {"200", "503 with Retry-After"}, clients.outcomes


def test_a_way_in_whose_proxy_ended_is_back(models: Site) -> None:
    for process in psutil.Process(models.cluster.nodes[0].process.pid).children(recursive=True):
        if process.name() == "haproxy":
            process.kill()

    def answers() -> bool:
        try:
            return models.infer() == 200
        except OSError:
            return False

    models.wait_until(answers, "answered")


def test_a_language_model_is_asked_by_openais_client(cluster: RayCluster, tmp_path: Path) -> None:
    write_small_llm(tmp_path, "assistant", SMALL_LLM)
    site = Site(cluster, "chat")
    site.deploy(tmp_path, "--cpus=1")
    client = openai.OpenAI(api_key="none", base_url=f"http://{HEAD}:{site.http_port}/v1")

    stream = client.completions.create(
        model="assistant", prompt="Once", max_tokens=8, stream=True, temperature=0
    )
    chunks = [each.choices[0].text for each in stream if each.choices]

    assert len(chunks) > 1
    cluster.ask("from ray import serve; serve.delete('chat')")


def test_replicas_come_with_the_queue_and_go_without(cluster: RayCluster, repository: Path) -> None:
    site = Site(cluster, "growing")
    site.deploy(
        repository,
        "--min-replicas=0",
        "--max-replicas=4",
        "--cpus=0.2",
        "--queue=2",
        "--scale-up-after-s=1",
        "--scale-down-after-s=5",
    )
    clients = Clients(site, "slow", count=32)
    with clients.asking():
        site.await_replicas(4)
        clients.more(40)
    assert set(clients.outcomes) == {"200"}
    site.await_replicas(0)

    assert site.infer() == 200
    cluster.ask("from ray import serve; serve.delete('growing')")


def test_a_node_that_vanishes_is_done_without(models: Site) -> None:
    """The last of the file: the other node has room for one of the two replicas."""
    clients = Clients(models, "slow")
    with clients.asking():
        clients.more(20)
        models.cluster.remove(models.cluster.nodes[1])
        clients.more(100)

    assert clients.failed <= clients.count, clients.outcomes
    assert set(clients.outcomes) <= {"200", "503 with Retry-After"}, clients.outcomes
