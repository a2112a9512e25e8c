"""Three servers of one language model behind a real nginx that goes by `x-trivet-prefix`."""

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from llm_site import SMALL_LLM, write_small_llm
from nginx_site import Nginx
from patience import patience
from serving import RunningServer, start_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CONVERSATIONS, TURNS = 12, 4
WORDS = "the cat sat on a mat and looked at the rain that fell on the old town "
HITS = re.compile(r"^vllm:prefix_cache_hits_total\{.*\} (\S+)$", re.MULTILINE)


def hits(server: RunningServer) -> float:
    """Tokens of prompts that it had computed before."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics") as page:
        return sum(map(float, HITS.findall(page.read().decode())))


def converse(port: int, *, with_header: bool) -> None:
    """All conversations turn by turn; each turn repeats what was said before."""
    for turn in range(1, TURNS + 1):
        for each in range(CONVERSATIONS):
            prompt = f"{each} " + WORDS * 4 * turn
            body = {"model": "assistant", "prompt": prompt, "max_tokens": 1, "temperature": 0}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode()
            )
            if with_header:
                request.add_header("x-trivet-prefix", f"conversation {each}")
            with urllib.request.urlopen(request, timeout=patience()) as answer:
                assert answer.status == 200


@contextmanager
def running(repository: Path, count: int) -> Iterator[list[RunningServer]]:
    with ExitStack() as stack:
        servers = []
        for _ in range(count):
            servers.append(start_server(repository))
            stack.callback(servers[-1].end)
        yield servers


@contextmanager
def behind_nginx(folder: Path, servers: list[RunningServer]) -> Iterator[int]:
    folder.mkdir()
    nginx = Nginx(folder, "hash $near consistent;")
    nginx.route([each.http_port for each in servers], [each.grpc_port for each in servers])
    try:
        yield nginx.http_port
    finally:
        nginx.stop()


def test_three_servers_find_what_one_would(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    write_small_llm(repository, "assistant", SMALL_LLM)
    found = {}
    with running(repository, 1) as (alone,):
        converse(alone.http_port, with_header=True)
        found["alone"] = hits(alone)
    for kind, with_header in (("near", True), ("anywhere", False)):
        with (
            running(repository, 3) as servers,
            behind_nginx(tmp_path / kind, servers) as port,
        ):
            converse(port, with_header=with_header)
            found[kind] = sum(map(hits, servers))

    assert found["near"] >= 0.9 * found["alone"] > 0, found
    assert found["anywhere"] < 0.9 * found["alone"], found
