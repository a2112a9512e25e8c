"""What a replica has to do is read from its server's page."""

from trivet.server.ray.server_process import Load

PAGE = """# HELP nv_inference_pending_request_count Instantaneous number
nv_inference_pending_request_count{model="a",version="1"} 3
nv_inference_pending_request_count{model="b",version="1"} 4
nv_inference_request_success{model="a",version="1"} 10
nv_inference_request_failure{model="a",version="1",reason="OTHER"} 2
nv_inference_request_duration_us{model="a",version="1"} 99
vllm:num_requests_waiting{model_name="c"} 5.0
vllm:num_requests_waiting_by_reason{model_name="c",reason="capacity"} 5.0
vllm:num_requests_running{model_name="c"} 1.0
"""


def test_queues_of_all_models_count() -> None:
    assert Load.of(PAGE) == Load(waiting=12, running=1, answered=12)


def test_a_server_without_models_has_nothing_to_do() -> None:
    assert Load.of("") == Load(waiting=0, running=0, answered=0)
