"""OpenVINO GenAI's continuous batching, without a server; runs in an environment of its own:
`PYTHON bench/llm_openvino.py GGUF STREAMS PROMPT_TOKENS NEW_TOKENS` prints figures as JSON."""

import json
import sys
import time

import numpy as np
import openvino
import openvino_genai


def main() -> None:
    """All streams at once, greedy, bfloat16."""
    count, size, num_new = map(int, sys.argv[2:])
    scheduling = openvino_genai.SchedulerConfig()
    scheduling.cache_size = 1  # GiB
    options = {"INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": "bf16"}
    pipeline = openvino_genai.ContinuousBatchingPipeline(sys.argv[1], scheduling, "CPU", options)
    prompts = [
        [(31 * place + 977 * each) % 40_000 + 20 for place in range(size)] for each in range(count)
    ]
    measure(pipeline, prompts, 4)
    first_s, all_s = measure(pipeline, prompts, 1), measure(pipeline, prompts, num_new)
    between_ms = (all_s - first_s) / (num_new - 1) * 1e3
    figures = {"tokens_per_s": count * num_new / all_s}
    figures |= {f"ttft_{cut}_ms": first_s * 1e3 for cut in ("p50", "p99")}
    figures |= {f"itl_{cut}_ms": between_ms for cut in ("p50", "p99")}
    print(json.dumps(figures))


def measure(pipeline: openvino_genai.ContinuousBatchingPipeline, prompts: list[list[int]],
            num_new: int) -> float:  # fmt: skip
    """Seconds until all have ended."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = num_new
    config.ignore_eos = True
    config.do_sample = False
    started_s = time.perf_counter()
    # A request whose handle is dropped is dropped, too.
    handles = [
        pipeline.add_request(index, openvino.Tensor(np.array([prompt], dtype=np.int64)), config)
        for index, prompt in enumerate(prompts)
    ]
    while pipeline.has_non_finished_requests():
        pipeline.step()
    elapsed_s = time.perf_counter() - started_s
    assert all(len(handle.read_all()[0].generated_ids) == num_new for handle in handles)
    return elapsed_s


if __name__ == "__main__":
    main()
