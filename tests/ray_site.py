"""Groups on a real Ray cluster, and clients that count what becomes of their requests."""

import http.client
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from patience import patience
from serving import write_identity

from bench.ray_cluster import HEAD, RayCluster, free_port

DELAY = 'parameters {{ key: "execute_delay_ms" value {{ string_value: "{ms}" }} }}'
EXAMPLES = Path(__file__).resolve().parents[1] / "model_repository"
ONE = "max_batch_size: 1\ninstance_group [{ count: 1 kind: KIND_CPU }]"
BODY = {"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": [1.0] * 16}]}


@dataclass
class Site:
    """One group on the cluster."""

    cluster: RayCluster
    name: str
    http_port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)

    def deploy(self, repository: Path, *options: str) -> None:
        self.cluster.deploy(
            repository,
            f"--name={self.name}",
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            "--host=node",
            "--flag=--allow-unauthenticated=true",
            *options,
        )

    def replicas(self) -> int:
        """As Serve counts those that run."""
        code = (
            "from ray import serve\n"
            f"app = serve.status().applications['{self.name}']\n"
            f"print(app.deployments['{self.name}'].replica_states.get('RUNNING', 0))"
        )
        return int(self.cluster.ask(code).split()[-1])

    def await_replicas(self, count: int) -> None:
        self.wait_until(lambda: self.replicas() == count, f"there are {count} replicas")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        ends_at_s = time.monotonic() + patience()
        while not holds():
            assert time.monotonic() < ends_at_s, f"never {what}\n{self.cluster.log()}"
            time.sleep(0.2)

    def infer(self, host: str = HEAD, model: str = "identity") -> int:
        """One request on a connection of its own; its status."""
        connection = http.client.HTTPConnection(host, self.http_port, timeout=patience())
        try:
            connection.request("POST", f"/v2/models/{model}/infer", json.dumps(BODY))
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


@dataclass
class Clients:
    """Ask without a pause, each on a connection that it keeps."""

    site: Site
    model: str
    host: str = HEAD
    count: int = 16
    outcomes: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._stop = threading.Event()
        threads = [threading.Thread(target=self._ask) for _ in range(self.count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["200"]

    def more(self, answers: int) -> None:
        """Until so many more were good."""
        wanted = self.outcomes["200"] + answers
        self.site.wait_until(lambda: self.outcomes["200"] >= wanted, "answered")

    def _ask(self) -> None:
        body = json.dumps(BODY)
        connection = http.client.HTTPConnection(self.host, self.site.http_port, timeout=patience())
        while not self._stop.is_set():
            try:
                connection.request("POST", f"/v2/models/{self.model}/infer", body)
                answer = connection.getresponse()
                answer.read()
                retry = answer.getheader("Retry-After")
                self.outcomes[f"{answer.status}" + (" with Retry-After" if retry else "")] += 1
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[type(error).__name__] += 1
                connection.close()
        connection.close()


def write_models(repository: Path) -> Path:
    """A fast one, a slow one that computes one by one, and one that streams."""
    write_identity(repository, "identity")
    config = write_identity(repository, "slow") / "config.pbtxt"
    slow = config.read_text().replace("max_batch_size: 8", ONE) + DELAY.format(ms=100)
    config.write_text(slow)
    shutil.copytree(EXAMPLES / "repeat_int32", repository / "repeat_int32")
    return repository
