"""The tensor form of text generation, with the names of Triton's vLLM backend.

In: text_input, and optionally stream, sampling_parameters (a JSON object as text),
exclude_input_in_output, return_finish_reason, return_cumulative_logprob, return_logprobs,
return_num_input_tokens, return_num_output_tokens.
Out: text_output and what was asked for.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import orjson

from trivet.backends.api import (
    CheckedRequest,
    Chunk,
    DataType,
    GenerateRequest,
    Generator,
    Grammar,
    InferResponse,
    InvalidRequest,
    Sampling,
    ServingError,
    Sink,
    Tensor,
    TokenLogprob,
)
from trivet.protos.model_config_pb2 import ModelConfig

INPUTS = (
    ("text_input", DataType.BYTES, False),
    ("stream", DataType.BOOL, True),
    ("sampling_parameters", DataType.BYTES, True),
    ("exclude_input_in_output", DataType.BOOL, True),
    ("return_finish_reason", DataType.BOOL, True),
    ("return_cumulative_logprob", DataType.BOOL, True),
    ("return_logprobs", DataType.BOOL, True),
    ("return_num_input_tokens", DataType.BOOL, True),
    ("return_num_output_tokens", DataType.BOOL, True),
)
"""Name, type, whether it may be left out."""
OUTPUTS = (
    ("text_output", DataType.BYTES),
    ("finish_reason", DataType.BYTES),
    ("cumulative_logprob", DataType.FP32),
    ("logprobs", DataType.BYTES),
    ("num_input_tokens", DataType.UINT32),
    ("num_output_tokens", DataType.UINT32),
)
DEFAULT_MAX_TOKENS = 16
MAX_GRAMMAR_CHARACTERS = 256 * 1024
FLAGS = (
    "stream",
    "exclude_input_in_output",
    "return_finish_reason",
    "return_cumulative_logprob",
    "return_logprobs",
    "return_num_input_tokens",
    "return_num_output_tokens",
)
_TUPLES = {"stop", "stop_token_ids", "allowed_token_ids", "bad_words"}
_APART = {"grammar", "logprob_token_ids"}
"""Fields of Sampling that are read otherwise, or have no place in the outputs here."""
_RANGES = {
    "max_tokens": (1, 2**31),
    "min_tokens": (0, 2**31),
    "temperature": (0, 2),
    "top_k": (-1, 2**31),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repetition_penalty": (0.01, 100),
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "seed": (-(2**63), 2**63 - 1),
    "logprobs": (0, 2**31),
    "prompt_logprobs": (0, 2**31),
    "thinking_token_budget": (-1, 2**31),
}
_ALIASES = {"include_stop_str_in_output": "include_stop"}
_HARMLESS: dict[str, Any] = {
    "n": 1, "best_of": 1, "use_beam_search": False, "length_penalty": 1.0, "detokenize": True,
    "spaces_between_special_tokens": True, "early_stopping": False,
}  # fmt: skip
"""What vLLM knows and is not offered, with the value that asks for nothing."""
_GRAMMARS = ("structured_outputs", "guided_decoding")
_KINDS = {"json": "json_schema", "regex": "regex", "choice": "choice", "grammar": "lark"}


def with_tensors(config: ModelConfig) -> ModelConfig:
    """A copy of a config, with the tensors of this form and no others."""
    completed = ModelConfig()
    completed.CopyFrom(config)
    completed.model_transaction_policy.decoupled = True
    del completed.input[:], completed.output[:]
    for name, datatype, is_optional in INPUTS:
        completed.input.add(
            name=name, data_type=datatype.to_config(), dims=[1], optional=is_optional
        )
    for name, datatype in OUTPUTS:
        completed.output.add(name=name, data_type=datatype.to_config(), dims=[1])
    return completed


@dataclass(frozen=True, slots=True)
class TextRequest:
    """What the tensors say."""

    text: str
    sampling: Sampling
    flags: frozenset[str]
    """Names of FLAGS that are true."""


def parse_tensors(request: CheckedRequest) -> TextRequest:
    """Reads the inputs; the request's parameters count as sampling parameters, too, and those
    inside the input go before them. Raises InvalidRequest."""
    text = _text(request, "text_input")
    if text is None:
        raise InvalidRequest("input 'text_input' is missing; it holds the prompt")
    if "image" in request.parameters:
        raise InvalidRequest(
            "image: tensors take texts alone; images are taken by /v1/chat/completions"
        )
    flags = frozenset(name for name in FLAGS if _flag(request, name))
    given = _text(request, "sampling_parameters")
    options: dict[str, Any] = dict(request.parameters)
    if given:
        try:
            inner = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"input 'sampling_parameters' is no JSON: {error}") from None
        if not isinstance(inner, dict):
            raise InvalidRequest("input 'sampling_parameters' must be a JSON object")
        _check_names(inner)
        options |= inner
    if options.get("lora") or options.get("lora_name"):
        raise InvalidRequest("parameter 'lora': name the adapter as the model, BASE:NAME")
    sampling = sampling_of(options)
    if flags & {"return_logprobs", "return_cumulative_logprob"} and sampling.logprobs is None:
        sampling = replace(sampling, logprobs=0)
    return TextRequest(text, sampling, flags)


async def answer_tensors(
    generator: Generator, request: CheckedRequest, text: TextRequest, version: int, sink: Sink
) -> None:
    """Has a request generated; every outcome goes to the sink, exactly one end."""
    begun_s = time.monotonic()
    try:
        prompt = await generator.compose(text.text)
        ids = await generator.encode(prompt, add_special_tokens=True)
    except ServingError as error:
        sink.fail(error)
        return
    generate = GenerateRequest(
        request.id,
        ids,
        text.sampling,
        priority=request.priority,
        cache_salt=request.tenant,
        deadline=request.deadline,
        cancel=request.cancel,
        prepared_s=time.monotonic() - begun_s,
        on_tokens=request.on_tokens,
        callers=request.callers,
    )
    generator.generate(generate, TensorSink(request, text, len(ids), version, sink))


def _check_names(options: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for what would be passed over: a wish that is not heard is an error."""
    known = {field.name for field in fields(Sampling)} - _APART
    for name, value in options.items():
        if name in known or name in _ALIASES or name in _GRAMMARS or value is None:
            continue
        if name not in _HARMLESS or value != _HARMLESS[name]:
            raise InvalidRequest(
                f"sampling_parameters: '{name[:64]}' with this value is not offered here"
            )


def sampling_of(options: Mapping[str, Any]) -> Sampling:
    """Sampling from vLLM's names for its fields. Raises InvalidRequest naming the field."""
    known = {field.name: field for field in fields(Sampling)}
    values: dict[str, Any] = {"max_tokens": DEFAULT_MAX_TOKENS}
    for name, value in options.items():
        field = known.get(_ALIASES.get(name, name))
        if field is None or field.name in _APART or value is None:
            continue
        values[field.name] = _value(name, field.name, value)
        _check_range(name, values[field.name])
    values["top_k"] = max(values.get("top_k", 0), 0)
    if values.get("thinking_token_budget") == -1:
        values["thinking_token_budget"] = None
    for name in _GRAMMARS:
        if options.get(name) is not None:
            values["grammar"] = _grammar(name, options[name])
    return Sampling(**values)


def _grammar(field: str, given: Any) -> Grammar:
    wishes = given if isinstance(given, dict) else {}
    found = {name: value for name, value in wishes.items() if value not in (None, False)}
    if len(found) != 1:
        raise InvalidRequest(
            f"sampling_parameters: '{field}' must be an object with exactly one of json, regex, "
            "choice, grammar and json_object"
        )
    ((name, value),) = found.items()
    if name == "json_object":
        return Grammar("json_object", "", field)
    if name not in _KINDS:
        raise InvalidRequest(f"sampling_parameters: '{field}.{str(name)[:64]}' is not offered here")
    is_text = isinstance(value, str)
    if name == "choice":
        is_text = False
        if not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
            raise InvalidRequest(f"sampling_parameters: '{field}.choice' must be a list of texts")
    elif not is_text and name != "json":
        raise InvalidRequest(f"sampling_parameters: '{field}.{name}' must be a text")
    text = value if is_text else json.dumps(value)
    if len(text) > MAX_GRAMMAR_CHARACTERS:
        raise InvalidRequest(
            f"sampling_parameters: '{field}.{name}' has {len(text)} characters; at most "
            f"{MAX_GRAMMAR_CHARACTERS} are allowed"
        )
    return Grammar(_KINDS[name], text, field)


def _value(name: str, field: str, value: Any) -> Any:
    try:
        if field == "stop" and isinstance(value, str):
            return (value,)
        if field in _TUPLES:
            return tuple(value)
        if field == "logit_bias":
            return {int(token): float(bias) for token, bias in value.items()}
        default = getattr(Sampling(), field)
        kind = int if default is None else type(default)
        # Triton's clients often send numbers as texts.
        return bool(value) if kind is bool else kind(value)
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise InvalidRequest(
            f"sampling_parameters: '{name}' has a value of the wrong kind"
        ) from None


def _check_range(name: str, value: Any) -> None:
    least, most = _RANGES.get(name, (None, None))
    # Not `value < least`: NaN is in no range.
    if least is not None and not least <= value <= most:
        raise InvalidRequest(
            f"sampling_parameters: '{name}' is {value}; it must be from {least} to {most}"
        )


class TensorSink:
    """Brings chunks into a Sink as tensors: one response each, or one for all."""

    def __init__(
        self, request: CheckedRequest, text: TextRequest, num_input: int, version: int, sink: Sink
    ) -> None:
        self._request = request
        self._text = text
        self._num_input = num_input
        self._version = version
        self._sink = sink
        self._streams = "stream" in text.flags
        self._parts: list[str] = []
        self._scored: list[TokenLogprob] = []
        self._total_logprob = 0.0
        self._num_output = 0

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""
        self._num_output += len(chunk.token_ids)
        self._scored += chunk.logprobs
        self._total_logprob += sum(each.logprob or 0.0 for each in chunk.logprobs)
        if not self._streams:
            self._parts.append(chunk.text)
            if chunk.finish is None:
                return
            prompt = "" if "exclude_input_in_output" in self._text.flags else self._text.text
            self._send(prompt + "".join(self._parts), chunk)
        elif chunk.text or chunk.finish is not None:
            self._send(chunk.text, chunk)

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""
        self._sink.fail(error)

    def _send(self, text: str, chunk: Chunk) -> None:
        reason = chunk.finish.reason if chunk.finish is not None else ""
        outputs = [_bytes("text_output", text)]
        flags = self._text.flags
        if "return_finish_reason" in flags:
            outputs.append(_bytes("finish_reason", reason))
        if "return_cumulative_logprob" in flags:
            total = np.array([self._total_logprob], dtype=np.float32)
            outputs.append(Tensor.of("cumulative_logprob", total))
        if "return_logprobs" in flags:
            told = orjson.dumps([each.ranked() for each in self._scored]).decode()
            outputs.append(_bytes("logprobs", told))
            self._scored = []
        if "return_num_input_tokens" in flags:
            outputs.append(_count("num_input_tokens", self._num_input))
        if "return_num_output_tokens" in flags:
            outputs.append(_count("num_output_tokens", self._num_output))
        response = InferResponse(self._request.model_name, self._version, self._request.id, outputs)
        self._sink.send(response, final=chunk.finish is not None)


def _bytes(name: str, text: str) -> Tensor:
    return Tensor.of(name, np.array([text.encode()], dtype=np.object_))


def _count(name: str, number: int) -> Tensor:
    return Tensor.of(name, np.array([number], dtype=np.uint32))


def _text(request: CheckedRequest, name: str) -> str | None:
    tensor = request.inputs.get(name)
    if tensor is None:
        value = request.parameters.get(name)
        return None if value is None else str(value)
    values = tensor.numpy().reshape(-1)
    if len(values) != 1:
        raise InvalidRequest(f"input '{name}' has {len(values)} elements; it holds exactly 1")
    try:
        return bytes(values[0]).decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"input '{name}' is not UTF-8 text") from None


def _flag(request: CheckedRequest, name: str) -> bool:
    tensor = request.inputs.get(name)
    if tensor is None:
        return bool(request.parameters.get(name, False))
    return bool(tensor.numpy().reshape(-1)[:1].any())
