"""What the bench reads out of h2load's words, and what it sends."""

import json

import pytest

from bench.peers.bodies import grpc_body, http_body, json_body
from bench.peers.cells import all_cells
from bench.peers.h2load import BadAnswers, figures_of
from bench.peers.repository import one_tensor, two_tensors
from bench.peers.triton import PYTHON, WHEEL, NoTriton, triton

OUTPUT = """
starting benchmark...
finished in 2.00s, 2000.50 req/s, 1.10MB/s
requests: 4003 total, 4003 started, 4001 done, {succeeded} succeeded, 0 failed, 0 errored
status codes: 4001 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 1.05MB (1100275) total, 500.13KB (512128) headers, 400KB (400100) data
                     min         max         mean         sd        +/- sd
time for request:      80us      9.20ms       120us        90us    95.00%
"""
LOG = "".join(f"170000000000{n:04}\t200\t{n}\n" for n in range(200, 100, -1))


def test_figures_of_a_run_are_read() -> None:
    figures = figures_of(OUTPUT.format(succeeded=4001), LOG, expected_bytes=100, server_cpu_s=0.4)
    assert figures["rate_per_s"] == 2000.5
    assert (figures["p50_us"], figures["p99_us"]) == (151, 200)
    assert figures["server_cpu_us"] == pytest.approx(0.4e6 / 4001)


@pytest.mark.parametrize(
    ("output", "expected_bytes", "said"),
    [
        (OUTPUT.format(succeeded=4000), 100, "4000 of 4001"),
        (OUTPUT.format(succeeded=4001), 110, "each has 110"),
        ("h2load: unrecognized option", 100, "something else"),
    ],
)
def test_runs_with_other_answers_than_the_checked_one_are_refused(
    output: str, expected_bytes: int, said: str
) -> None:
    with pytest.raises(BadAnswers, match=said):
        figures_of(output, LOG, expected_bytes, 0.4)


def test_binary_body_is_json_and_the_tensors_behind_it() -> None:
    inputs = two_tensors()
    body = http_body("in-server-two", inputs, dressed=True)
    length = int(dict(body.headers)["Inference-Header-Content-Length"])
    document = json.loads(body.content[:length])
    sizes = [each["parameters"]["binary_data_size"] for each in document["inputs"]]
    assert len(body.content) == length + sum(sizes)
    assert body.content[length:].startswith(inputs["INPUT0"].tobytes())
    assert {each["name"] for each in document["outputs"]} == {"OUTPUT0", "OUTPUT1"}


def test_message_is_framed_by_its_length() -> None:
    content = grpc_body("python", one_tensor()).content
    assert content[:5] == b"\0" + (len(content) - 5).to_bytes(4, "big")


def test_json_body_holds_the_values() -> None:
    document = json.loads(json_body("in-server", one_tensor()).content)
    assert document["inputs"][0]["data"] == one_tensor()["INPUT0"].ravel().tolist()


def test_without_triton_the_part_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WHEEL, raising=False)
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(NoTriton, match="pip download"), triton(None, 0):  # type: ignore[arg-type] # not looked at
        pass


def test_every_bar_of_the_peers_is_asked() -> None:
    asked = {(cell.name, n): bar for cell in all_cells() for n, bar in cell.bars.items()}
    assert asked["in-server, HTTP", 64] == 1.5
    assert asked["Python model, gRPC", 64] == 2.5
    assert asked["in-server, JSON", 64] == 2.0
