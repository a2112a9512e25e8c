"""The fields of OpenAI's requests and vLLM's further ones; a wrong one is named in the error.

Unknown fields are ignored, as OpenAI's clients expect. Known ones that are not offered are refused.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trivet.backends.api import Grammar, InvalidRequest, Sampling, Unsupported

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1000
MAX_PROMPTS = 1024
MAX_LOGIT_BIASES = 1024
MAX_GRAMMAR_CHARACTERS = 256 * 1024
_MAX_TOLD_ERRORS = 10
_MAX_TOLD_CHARACTERS = 200

R = TypeVar("R", bound=BaseModel)
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, strict=True)]


class Fields(BaseModel):
    """Base: strict about types, easy about unknown names."""

    model_config = ConfigDict(extra="ignore", strict=True)


class StreamOptions(Fields):
    """What else a stream carries."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class StructuredOutputs(Fields):
    """vLLM's form of what the output must match: exactly one."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=10_000)] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class JsonSchema(Fields):
    """A named schema of `response_format`."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Fields):
    """OpenAI's form of the same."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class SamplingFields(Fields):
    """What completions and chat share."""

    model: str
    frequency_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Finite, Field(gt=0, le=100)] | None = None
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[Finite, Field(ge=-100, le=100)]],
            Field(max_length=MAX_LOGIT_BIASES),
        ]
        | None
    ) = None
    max_tokens: Count | None = None
    min_tokens: Count = 0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1)] | None = None
    bad_words: Annotated[list[str], Field(max_length=128)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    return_token_ids: bool | None = None
    echo: bool = False
    # Known, and refused rather than ignored.
    best_of: int | None = None
    suffix: str | None = None
    use_beam_search: bool | None = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    prompt_embeds: Any = None
    chat_template: Any = None
    audio: Any = None
    modalities: Any = None

    def check(self) -> None:
        """What no single field can say. Raises InvalidRequest, Unsupported."""
        for name, instead in _REFUSED.items():
            value = getattr(self, name)
            if value is not None and value is not False and (name, value) != ("best_of", 1):
                raise Unsupported(f"{name}: it is not offered here{instead}")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options: it is allowed only with stream=true")
        if self.prompt_logprobs is not None and self.stream:
            raise InvalidRequest("prompt_logprobs: it is not available with stream=true")

    def stops(self) -> tuple[str, ...]:
        """The stop texts. Raises InvalidRequest."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > MAX_STOPS:
            raise InvalidRequest(f"stop: {len(stops)} texts; at most {MAX_STOPS} are allowed")
        for stop in stops:
            if not 0 < len(stop) <= MAX_STOP_CHARACTERS:
                raise InvalidRequest(
                    f"stop: a text of {len(stop)} characters; 1 to {MAX_STOP_CHARACTERS} may be"
                )
        return stops

    def biases(self) -> dict[int, float]:
        """logit_bias by token id. Raises InvalidRequest."""
        try:
            return {int(token): bias for token, bias in (self.logit_bias or {}).items()}
        except ValueError:
            raise InvalidRequest("logit_bias: its keys must be token ids in digits") from None

    def grammar(self) -> Grammar | None:
        """What the output must match. Raises InvalidRequest."""
        found = [*_from_format(self.response_format), *_from_structured(self.structured_outputs)]
        if len(found) > 1:
            raise InvalidRequest(
                f"structured_outputs: {len(found)} constraints at once; give only one"
            )
        if found and len(found[0].value) > MAX_GRAMMAR_CHARACTERS:
            raise InvalidRequest(
                f"{found[0].field}: {len(found[0].value)} characters; at most "
                f"{MAX_GRAMMAR_CHARACTERS} are allowed"
            )
        return found[0] if found else None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """How to choose tokens. Raises InvalidRequest."""
        if max_tokens is not None and self.min_tokens > max_tokens:
            raise InvalidRequest(
                f"min_tokens: {self.min_tokens} is more than max_tokens, {max_tokens}"
            )
        return Sampling(
            max_tokens=max_tokens,
            min_tokens=self.min_tokens,
            temperature=_or(self.temperature, 1.0),
            top_k=max(self.top_k or 0, 0),
            top_p=_or(self.top_p, 1.0),
            min_p=_or(self.min_p, 0.0),
            repetition_penalty=_or(self.repetition_penalty, 1.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            seed=self.seed,
            stop=self.stops(),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            include_stop=self.include_stop_str_in_output,
            ignore_eos=self.ignore_eos,
            logit_bias=self.biases(),
            allowed_token_ids=tuple(self.allowed_token_ids or ()),
            bad_words=tuple(self.bad_words or ()),
            logprobs=logprobs,
            prompt_logprobs=self.prompt_logprobs,
            grammar=self.grammar(),
            skip_special_tokens=self.skip_special_tokens,
        )


class ChatFields(SamplingFields):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    def check(self) -> None:
        """What no single field can say."""
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs: it is allowed only with logprobs=true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidRequest("max_tokens: give it or max_completion_tokens, not both")
        if self.max_tokens == 0:
            raise InvalidRequest("max_tokens: it is 0; at least 1 is needed")
        if self.continue_final_message and self.add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message: it is not allowed together with add_generation_prompt"
            )
        if self.tool_choice not in (None, "none") and not self.tools:
            raise InvalidRequest("tool_choice: it is allowed only with tools")
        for name in self.chat_template_kwargs or {}:
            if name in _RESERVED:
                raise InvalidRequest(f"chat_template_kwargs: '{name}' is set by the server")
        check_messages(self.messages)

    @property
    def token_limit(self) -> int | None:
        """None: as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionFields(SamplingFields):
    """The body of /v1/completions."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]]
    logprobs: Annotated[int, Field(ge=0)] | None = None
    add_special_tokens: bool = True

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or several. Raises InvalidRequest."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if not prompt:
            raise InvalidRequest("prompt: the list is empty; at least 1 is needed")
        if isinstance(prompt[0], int):
            return [prompt]
        if len(prompt) > MAX_PROMPTS:
            raise InvalidRequest(
                f"prompt: {len(prompt)} prompts; at most {MAX_PROMPTS} are allowed"
            )
        return list(prompt)


class TokenizeFields(Fields):
    """The body of /tokenize, vLLM's form."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool = False
    tools: list[dict[str, Any]] | None = None


class DetokenizeFields(Fields):
    """The body of /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


def parse(kind: type[R], body: bytes | memoryview) -> R:
    """The body's fields. Raises InvalidRequest with each wrong field and what it must be."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the request body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the request body must be a JSON object")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise InvalidRequest(_told(error)) from None


def _told(error: ValidationError) -> str:
    lines: list[str] = []
    for each in error.errors(include_url=False, include_context=False)[:_MAX_TOLD_ERRORS]:
        field = each["loc"][0] if each["loc"] else ""
        if field in _ONE_OF_SEVERAL and each["type"] != "missing":
            # Each form has complained, though at most one was meant.
            text = f"{field}: it must be {_ONE_OF_SEVERAL[field]}"
            lines += [text] * (text not in lines)
            continue
        place = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}"
            for part in each["loc"]
            if isinstance(part, int) or part.replace("_", "").isalnum()
        ).lstrip(".")
        value = each.get("input")
        shown = f" (got {str(value)[:60]!r})" if isinstance(value, int | float | str) else ""
        lines.append(f"{place}: {each['msg']}{shown}"[:_MAX_TOLD_CHARACTERS])
    return "; ".join(lines)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises InvalidRequest for what is no conversation of texts."""
    for index, message in enumerate(messages):
        _check_message(index, message)


def _check_message(index: int, message: Mapping[str, Any]) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise InvalidRequest(
            f"messages[{index}].role: it must be one of {', '.join(sorted(_ROLES))}"
        )
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise InvalidRequest(f"messages[{index}].tool_call_id: a tool message must have it")
    if content is None and (role != "assistant" or not message.get("tool_calls")):
        raise InvalidRequest(f"messages[{index}].content: it is missing")
    if content is not None and not isinstance(content, str | list):
        raise InvalidRequest(f"messages[{index}].content: it must be a text or a list of parts")
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(part, dict) or part.get("type") != "text":
            raise InvalidRequest(
                f"messages[{index}].content[{number}].type: only text parts are offered"
            )
        if not isinstance(part.get("text"), str):
            raise InvalidRequest(f"messages[{index}].content[{number}].text: it must be a text")


def _from_format(given: ResponseFormat | None) -> list[Grammar]:
    if given is None or given.type == "text":
        return []
    if given.type == "json_object":
        return [Grammar("json_object", "", "response_format")]
    if given.json_schema is None or given.json_schema.schema_ is None:
        raise InvalidRequest("response_format.json_schema.schema: it is missing")
    return [Grammar("json_schema", json.dumps(given.json_schema.schema_), "response_format")]


def _from_structured(given: StructuredOutputs | None) -> list[Grammar]:
    if given is None:
        return []
    found = []
    if given.json_ is not None:
        schema = given.json_ if isinstance(given.json_, str) else json.dumps(given.json_)
        found.append(Grammar("json_schema", schema))
    if given.json_object:
        found.append(Grammar("json_object", ""))
    if given.regex is not None:
        found.append(Grammar("regex", given.regex))
    if given.choice is not None:
        found.append(Grammar("choice", json.dumps(given.choice)))
    if given.grammar is not None:
        found.append(Grammar("lark", given.grammar))
    if not found:
        raise InvalidRequest("structured_outputs: it holds no constraint")
    return found


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


_ONE_OF_SEVERAL: dict[int | str, str] = {
    "prompt": "a text, a list of texts, a list of token ids (0 or more), or a list of such lists",
    "stop": "a text or a list of texts",
    "tool_choice": "none, auto, required or an object that names a function",
}
_ROLES = {"system", "developer", "user", "assistant", "tool"}
_RESERVED = {
    "messages", "tools", "add_generation_prompt", "chat_template", "tokenize", "conversation",
    "documents", "continue_final_message", "raise_exception", "strftime_now", "self",
}  # fmt: skip
_REFUSED = {
    "best_of": "",
    "suffix": "",
    "use_beam_search": "",
    "guided_json": "; use structured_outputs.json",
    "guided_regex": "; use structured_outputs.regex",
    "guided_choice": "; use structured_outputs.choice",
    "guided_grammar": "; use structured_outputs.grammar",
    "prompt_embeds": "",
    "chat_template": ", for a template is code; the model's own is used",
    "audio": "",
    "modalities": "",
}
