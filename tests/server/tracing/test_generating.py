"""What the span of a generated output tells, in OpenTelemetry's words and in vLLM's."""

import asyncio
from dataclasses import dataclass

import pytest
from scripted_model import ScriptedModel

from trivet.backends.api import ChatInput, Chunk, GenerateRequest, Sampling, ServingError
from trivet.server.tracing.generating import TracedGenerator
from trivet.server.tracing.record import AttributeValue, Trace
from trivet.server.tracing.sampling import Sampler
from trivet.server.tracing.setting import TraceSetting
from trivet.server.tracing.tracer import Tracer


@dataclass(frozen=True, slots=True)
class Named:
    name: str = "script"
    version: int = 1


class Ended:
    """A sink that notices the end."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def chunk(self, chunk: Chunk) -> None:
        if chunk.finish is not None:
            self.event.set()

    def fail(self, error: ServingError) -> None:
        raise error


@pytest.mark.parametrize(("is_chat", "operation"), [(True, "chat"), (False, "text_completion")])
async def test_span_has_the_names_of_the_conventions_and_the_old_ones(
    is_chat: bool, operation: str
) -> None:
    traces: list[Trace] = []
    always = Sampler(TraceSetting(("TIMESTAMPS",), rate=1))
    model = ScriptedModel()
    model.pieces = ("one", "two", "three")
    generator = TracedGenerator(model, Tracer(always, {}, traces.append), Named())
    if is_chat:
        await generator.render(ChatInput([{"role": "user", "content": "hi"}]))
    ended = Ended()
    generator.generate(GenerateRequest("r1", [1, 2, 3, 4], Sampling(max_tokens=8)), ended)
    await ended.event.wait()
    ((span,),) = (trace.spans for trace in traces)
    wanted = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "trivet",
        "gen_ai.request.model": "script",
        "gen_ai.response.model": "script",
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.prompt_tokens": 4,
        "gen_ai.usage.completion_tokens": 3,
        "gen_ai.response.finish_reason": "stop",
        "gen_ai.request.max_tokens": 8,
    }
    assert wanted.items() <= span.attributes.items()


@pytest.mark.parametrize("level", ["TIMESTAMPS", "TENSORS"])
async def test_texts_are_kept_where_tensors_are(level: str) -> None:
    traces: list[Trace] = []
    always = Sampler(TraceSetting((level,), rate=1))
    model = ScriptedModel()
    model.pieces = ("one, ", "two")
    chosen: dict[str, AttributeValue] = {"trivet.version": 1, "trivet.route": "split:a"}
    generator = TracedGenerator(model, Tracer(always, {}, traces.append), Named(), chosen)
    await generator.render(ChatInput([{"role": "user", "content": "hi, you"}]))
    ended = Ended()
    generator.generate(GenerateRequest("r1", [1], Sampling()), ended)
    await ended.event.wait()
    ((span,),) = (trace.spans for trace in traces)

    assert chosen.items() <= span.attributes.items()
    kept = [(each.activity, each.name, each.values[0]) for each in span.tensors]
    assert kept == (
        []
        if level == "TIMESTAMPS"
        else [
            ("TENSOR_QUEUE_INPUT", "messages", b'[{"role": "user", "content": "hi, you"}]'),
            ("TENSOR_BACKEND_OUTPUT", "text_output", b"one, two"),
        ]
    )
