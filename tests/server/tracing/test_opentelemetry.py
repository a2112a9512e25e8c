"""Spans that a collector receives: the tree of a request, its numbers, and whose trace it is in."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from patience import patience
from serving import RunningServer
from trace_site import Collector, attributes

pytestmark = pytest.mark.filterwarnings("ignore")  # gevent, under the client, warns of threads
Serve = Callable[..., RunningServer]
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SILENT = CALLER.removesuffix("01") + "00"
STAGES = ["queue", "compute"]
KINDS = ["host", "gather", "scatter", "host_to_device", "device_to_host"]


def start(serve: Serve, repository: Path, collector: Collector, *more: str) -> RunningServer:
    options = [
        "mode=opentelemetry", "level=TIMESTAMPS", f"opentelemetry,url={collector.url}",
        "opentelemetry,resource=service.name=tested", "opentelemetry,bsp_schedule_delay=20", *more,
    ]  # fmt: skip
    return serve(repository, *(f"--trace-config={option}" for option in options))


def infer_http(server: RunningServer, model: str, **headers: str) -> None:
    client = triton_http.InferenceServerClient(server.http)
    tensor = triton_http.InferInput("IN" if model == "both" else "INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
    client.infer(model, [tensor], request_id="r1", headers=headers)
    client.close()


def infer_grpc(server: RunningServer, model: str, **headers: str) -> None:
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        tensor = triton_grpc.InferInput("INPUT0", [1, 16], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 16), np.float32))
        client.infer(model, [tensor], headers=headers)


def test_an_ensemble_is_a_tree_of_its_steps_and_their_stages(
    serve: Serve, repository: Path, collector: Collector
) -> None:
    server = start(serve, repository, collector, "rate=1")

    infer_http(server, "both")

    collector.wait(lambda c: len(c.spans) == 14)
    request = collector.named("InferRequest")
    assert request.parent_span_id == b""
    assert [event.name for event in request.events] == [
        "HTTP_RECV_START", "HTTP_RECV_END", "INFER_RESPONSE_COMPLETE", "HTTP_SEND_START",
        "HTTP_SEND_END",
    ]  # fmt: skip
    assert collector.children(request) == ["both"]
    assert collector.children(collector.named("both")) == ["first", "second"]
    for step in ("first", "second"):
        span = collector.named(step)
        assert collector.children(span) == STAGES
        told = attributes(list(span.attributes))
        assert told["triton.model_name"] == step
        assert told["triton.request_id"] == "r1"
        assert [told[f"trivet.copied_bytes.{kind}"] for kind in KINDS] == [0] * 5
        assert told["trivet.host_synchronisations"] == 0
    assert len({span.trace_id for span in collector.spans}) == 1
    (resource,) = {each.resource.SerializeToString() for r in collector.requests
                   for each in r.resource_spans}  # fmt: skip
    assert b"tested" in resource


def test_spans_lie_within_their_parents_and_stages_follow_each_other(
    serve: Serve, repository: Path, collector: Collector
) -> None:
    server = start(serve, repository, collector, "rate=1")

    infer_grpc(server, "first")

    collector.wait(lambda c: len(c.spans) == 7)
    by_id = {span.span_id: span for span in collector.spans}
    for span in collector.spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        if parent := by_id.get(span.parent_span_id):
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
    assert abs(collector.named("first").start_time_unix_nano - time.time_ns()) < 60e9
    parts = ["compute_input", "compute_infer", "compute_output"]
    assert collector.children(collector.named("compute")) == parts


@pytest.mark.parametrize("infer", [infer_http, infer_grpc])
def test_a_caller_that_traces_decides_whatever_the_rate(
    serve: Serve, repository: Path, collector: Collector,
    infer: Callable[..., None],
) -> None:  # fmt: skip
    server = start(serve, repository, collector, "rate=1000000")

    infer(server, "first", traceparent=SILENT)
    infer(server, "first")
    infer(server, "first", traceparent=CALLER)

    collector.wait(lambda c: len(c.spans) == 7)
    request = collector.named("InferRequest")
    assert request.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_span_id.hex() == "b7ad6b7169203331"


def test_a_failed_request_is_an_error_with_the_text_that_the_client_got(
    serve: Serve, repository: Path, collector: Collector
) -> None:
    server = start(serve, repository, collector, "rate=1")

    with pytest.raises(Exception, match="unknown model"):
        infer_grpc(server, "missing")

    collector.wait(lambda c: len(c.spans) == 1)
    assert "missing" in collector.named("InferRequest").status.message


def test_a_collector_that_is_down_costs_no_request_and_one_line(
    serve: Serve, repository: Path, collector: Collector
) -> None:
    url = "opentelemetry,url=http://user:secret@127.0.0.1:9/v1/traces"
    sizes = ["opentelemetry,bsp_max_queue_size=4", "opentelemetry,bsp_max_export_batch_size=2"]
    server = start(serve, repository, collector, url, "rate=1", *sizes)

    for _ in range(20):
        infer_grpc(server, "first")

    server.wait_until(lambda: any("spans are lost" in line for line in server.output), "told")
    started_s = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started_s < patience(15)
    text = "".join(server.output)
    assert "Traceback" not in text
    assert text.count("spans are lost") == 1
    assert "secret" not in text
    assert "http://127.0.0.1:9/v1/traces" in text


def test_a_collector_that_takes_and_never_answers_costs_no_request(
    serve: Serve, repository: Path, collector: Collector
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"opentelemetry,url=http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        sizes = ["opentelemetry,bsp_max_queue_size=4", "opentelemetry,bsp_max_export_batch_size=2"]
        server = start(serve, repository, collector, url, "rate=1", *sizes)
        started_s = time.monotonic()
        for _ in range(20):
            infer_grpc(server, "first")
        assert time.monotonic() - started_s < patience(5)
        started_s = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started_s < patience(20)
    assert "Traceback" not in "".join(server.output)
