"""The response cache as clients and operators see it: local, and shared over a real Redis."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from redis_site import RedisServer
from serving import RunningServer, write_identity

CACHED = "response_cache { enable: true }"
COUNTING = '''
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    """Answers how often it was asked; fails the first time."""

    def initialize(self, args):
        self.count = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            self.count += 1
            error = pb_utils.TritonError("swordfish") if self.count == 1 else None
            output = pb_utils.Tensor("OUT", np.array([[self.count]], np.int32))
            responses.append(pb_utils.InferenceResponse([output], error))
        return responses
'''


def write_counting(repository: Path, source: str = COUNTING) -> None:
    folder = repository / "counting/1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(source)
    (folder.parent / "config.pbtxt").write_text(
        'backend: "python" max_batch_size: 4 response_cache { enable: true }\n'
        'input [{ name: "IN" data_type: TYPE_STRING dims: [ 1 ] }]\n'
        'output [{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }]\n'
        'parameters { key: "isolation" value { string_value: "none" } }\n'
        "instance_group { count: 1 }"
    )


ENSEMBLE = """
platform: "ensemble"
max_batch_size: 4
response_cache { enable: true }
ensemble_scheduling { step [
  { model_name: "counting"
    input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "OUT" } }
] }
"""


def ask(server: RunningServer, text: str, model: str = "counting", **more: Any) -> int:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        tensor = grpcclient.InferInput("IN", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[text]], dtype=object))
        answer = client.infer(model, [tensor], **more)
        assert answer.get_response().id == more.get("request_id", "")
        count: int = answer.as_numpy("OUT").item()
        return count


def statistics(server: RunningServer, model: str) -> Any:
    with grpcclient.InferenceServerClient(server.grpc) as client:
        (found,) = client.get_inference_statistics(model).model_stats
        return found


def test_equal_requests_are_computed_once(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_counting(tmp_path)
    write_identity(tmp_path, "plain")
    summaries = "--metrics-config=summary_latencies=true"
    server = serve(tmp_path, "--cache-config=local,size=1048576", summaries)
    with pytest.raises(Exception, match="swordfish"):
        ask(server, "a")
    assert [ask(server, "a") for _ in range(3)] == [2, 2, 2]
    assert ask(server, "a", request_id="other", priority=1) == 2
    assert ask(server, "b") == 3
    assert ask(server, "a", parameters={"seed": 1}) == 4
    found = statistics(server, "counting")
    stats = found.inference_stats
    assert (stats.cache_hit.count, stats.cache_miss.count) == (3, 4)
    assert (stats.success.count, stats.queue.count, stats.fail.count) == (6, 6, 1)
    assert stats.compute_infer.count == stats.success.count - stats.cache_hit.count
    assert (found.inference_count, found.execution_count) == (3, 4)
    page = server.metrics()
    for line in (
        'nv_cache_num_hits_per_model{model="counting",version="1"} 3',
        'nv_cache_num_misses_per_model{model="counting",version="1"} 4',
        'nv_cache_hit_summary_per_model_count{model="counting",version="1"} 3',
        'nv_cache_miss_summary_per_model_count{model="counting",version="1"} 4',
        "nv_cache_num_entries 3",
        "nv_cache_num_lookups 7",
        "nv_cache_num_hits 3",
        "nv_cache_num_misses 4",
        "nv_cache_num_evictions 0",
    ):
        assert line in page
    for name in ("num_hits", "hit_summary", "miss_summary"):
        assert f'nv_cache_{name}_per_model{{model="plain"' not in page


def test_a_changed_model_answers_for_itself(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    write_counting(tmp_path, COUNTING.replace("self.count == 1", "False"))
    server = serve(tmp_path, "--cache-config=local,size=1048576", "--model-control-mode=explicit",
                   "--load-model=counting")  # fmt: skip
    assert [ask(server, "a"), ask(server, "a")] == [1, 1]
    changed = COUNTING.replace("self.count == 1", "False").replace("count = 0", "count = 100")
    write_counting(tmp_path, changed)
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.load_model("counting")
    assert [ask(server, "a"), ask(server, "a")] == [101, 101]


def test_an_ensemble_is_answered_as_a_whole_until_a_step_of_it_changes(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    source = COUNTING.replace("self.count == 1", "False")
    write_counting(tmp_path, source)
    config = tmp_path / "counting" / "config.pbtxt"
    config.write_text(config.read_text().replace(CACHED, ""))
    (tmp_path / "whole" / "1").mkdir(parents=True)
    (tmp_path / "whole" / "config.pbtxt").write_text(ENSEMBLE)
    server = serve(tmp_path, "--cache-config=local,size=1048576", "--model-control-mode=explicit",
                   "--load-model=whole")  # fmt: skip
    assert [ask(server, text, "whole") for text in "aabab"] == [1, 1, 2, 1, 2]
    assert statistics(server, "counting").execution_count == 2
    assert statistics(server, "whole").inference_stats.cache_hit.count == 3
    (tmp_path / "counting" / "1" / "model.py").write_text(source.replace("count = 0", "count = 50"))
    with grpcclient.InferenceServerClient(server.grpc) as client:
        client.load_model("counting")

    def times_made() -> int:
        return sum("model 'whole' version 1 is ready" in line for line in server.output)

    # The ensemble is made anew behind its step, which drops answers once more.
    server.wait_until(lambda: times_made() == 2, "made anew")
    first, again, other = (ask(server, text, "whole") for text in "aab")
    assert first == again > 50
    assert other == first + 1


def test_servers_share_answers_over_redis_and_live_without_it(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_counting(tmp_path / name, COUNTING.replace("self.count == 1", "False"))
    redis = RedisServer(tmp_path).start()
    try:
        servers = [serve(tmp_path / name, *redis.flags) for name in ("one", "other")]
        assert ask(servers[0], "a") == 1
        assert ask(servers[0], "b") == 2
        servers[0].wait_until(lambda: ask(servers[0], "a") == 1, "kept")
        servers[0].wait_until(lambda: ask(servers[0], "b") == 2, "kept")
        assert [ask(servers[1], "b"), ask(servers[1], "a")] == [2, 1]
        assert statistics(servers[1], "counting").inference_stats.cache_hit.count == 2
    finally:
        redis.stop()
    assert ask(servers[1], "b") == 1
    assert ask(servers[1], "b") == 2


def test_a_server_starts_without_its_redis(
    serve: Callable[..., RunningServer], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    write_counting(tmp_path / "models", COUNTING.replace("self.count == 1", "False"))
    server = serve(tmp_path / "models", *RedisServer(tmp_path).flags)
    assert [ask(server, "a"), ask(server, "a")] == [1, 2]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("sequence_batching { direct {} }", "cannot be enabled with sequence_batching"),
        ("model_transaction_policy { decoupled: true }", "cannot be enabled for a decoupled model"),
    ],
)
def test_what_cannot_be_cached_does_not_load(
    serve: Callable[..., RunningServer], tmp_path: Path, more: str, reason: str
) -> None:
    write_identity(tmp_path, "wrong", more=f"{CACHED} {more}")
    flags = ("--exit-on-error=false", "--strict-readiness=false")
    server = serve(tmp_path, "--cache-config=local,size=1000", *flags)
    assert reason in server.index()["wrong", "1"]["reason"]
