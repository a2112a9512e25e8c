"""A response as a document."""

from collections.abc import Mapping
from typing import Any

from trivet.backends.api import GeneratorInfo, InvalidRequest, ServingError
from trivet.server.auth.errors import RateLimited
from trivet.server.http.openai.documents import now_s
from trivet.server.http.openai.responses.fields import ResponseFields
from trivet.server.http.openai.responses.output import OutputItems


def unchanging(
    response_id: str, asked: ResponseFields, info: GeneratorInfo, *, is_kept: bool
) -> dict[str, Any]:
    """What a response says of its request, from the first event to the last."""
    defaults = info.sampling_defaults
    return {
        "id": response_id,
        "object": "response",
        "created_at": now_s(),
        "model": asked.model,
        "background": bool(asked.background),
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": _reasoning(asked),
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": is_kept,
        "temperature": _or(asked.temperature, defaults.get("temperature", 1.0)),
        "text": _text(asked),
        "tool_choice": asked.tool_choice or "auto",
        "tools": [{"parameters": None, "strict": None, **tool} for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": _or(asked.top_p, defaults.get("top_p", 1.0)),
        "truncation": asked.truncation or "disabled",
        "user": asked.user,
    }


def usage(num_input: int, output: OutputItems) -> dict[str, Any]:
    """The token counts of a response."""
    return {
        "input_tokens": num_input,
        "input_tokens_details": {"cached_tokens": output.num_cached, "cache_write_tokens": 0},
        "output_tokens": output.num_tokens,
        "output_tokens_details": {"reasoning_tokens": output.num_reasoning_tokens},
        "total_tokens": num_input + output.num_tokens,
    }


def error_of(error: ServingError) -> dict[str, Any]:
    """Why a response failed, in the few words that the API has for it."""
    code = "server_error"
    if isinstance(error, RateLimited):
        code = "rate_limit_exceeded"
    elif isinstance(error, InvalidRequest):
        code = "invalid_prompt"
    return {"code": code, "message": error.message}


def _reasoning(asked: ResponseFields) -> dict[str, Any]:
    given = asked.reasoning
    if given is None:
        return {"effort": None, "summary": None}
    return {"effort": given.effort, "summary": given.summary or given.generate_summary}


def _text(asked: ResponseFields) -> Mapping[str, Any]:
    told: dict[str, Any] = {
        "format": asked.text_format.model_dump(by_alias=True, exclude_none=True)
    }
    told["format"].setdefault("type", "text")
    if asked.text is not None and asked.text.verbosity is not None:
        told["verbosity"] = asked.text.verbosity
    return told


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
