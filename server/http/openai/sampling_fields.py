"""The fields that /v1/completions and /v1/chat/completions share, and those of the first."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from trivet.backends.api import Grammar, InvalidRequest, Sampling
from trivet.server.http.openai.fields import Count, Fields, Finite, Listed, TokenId
from trivet.server.http.openai.grammars import ResponseFormat, StructuredOutputs, grammar_of
from trivet.server.http.openai.refusals import refuse_known

MAX_CHOICES = 128
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1000
MAX_PROMPTS = 1024
MAX_LOGIT_BIASES = 1024
MAX_LOGPROB_TOKEN_IDS = 128


def _few(biases: object) -> object:
    """Before each of them is looked at."""
    if isinstance(biases, dict) and len(biases) > MAX_LOGIT_BIASES:
        raise ValueError(f"{len(biases)} biases; at most {MAX_LOGIT_BIASES} are allowed")
    return biases


LOGPROBS_OF_NOTHING = "logprob_token_ids: it is allowed only with logprobs"


class StreamOptions(Fields):
    """What else a stream carries."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class SamplingFields(Fields):
    """What completions and chat share."""

    # Kept, so that those among them which are known can be refused.
    model_config = ConfigDict(extra="allow", strict=True)
    max_stops: ClassVar[int] = MAX_STOPS
    fits_limit: ClassVar[bool] = False
    """Whether a limit of tokens that is beyond the model's length is cut, not refused."""

    model: str
    user: str | None = None
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
            BeforeValidator(_few),
        ]
        | None
    ) = None
    max_tokens: Count | None = None
    min_tokens: Count = 0
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Listed[str] | None = None
    stop_token_ids: Listed[TokenId] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: Annotated[Listed[TokenId], Field(min_length=1)] | None = None
    bad_words: Annotated[Listed[str], Field(max_length=128)] | None = None
    prompt_logprobs: Annotated[int, Field(ge=0)] | None = None
    logprob_token_ids: (
        Annotated[Listed[TokenId], Field(max_length=MAX_LOGPROB_TOKEN_IDS)] | None
    ) = None
    thinking_token_budget: Annotated[int, Field(ge=-1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] = 0
    cache_salt: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    request_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")] | None = None
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    stream_interval: Annotated[int, Field(ge=1, le=1024)] = 1
    echo: bool = False

    def check(self) -> None:
        """What no single field can say. Raises InvalidRequest, Unsupported."""
        refuse_known(self.model_extra or {})
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("stream_options: it is allowed only with stream=true")
        if self.prompt_logprobs is not None and self.stream:
            raise InvalidRequest("prompt_logprobs: it is not available with stream=true")

    def stops(self) -> tuple[str, ...]:
        """The stop texts. Raises InvalidRequest."""
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if len(stops) > self.max_stops:
            raise InvalidRequest(f"stop: {len(stops)} texts; at most {self.max_stops} are allowed")
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
        return grammar_of(self.response_format, self.structured_outputs)

    def sampling(
        self, max_tokens: int | None, logprobs: int | None, defaults: Mapping[str, float]
    ) -> Sampling:
        """How to choose tokens; `defaults`: what the model recommends where the request does not
        say. Raises InvalidRequest."""
        if max_tokens is not None and self.min_tokens > max_tokens:
            raise InvalidRequest(
                f"min_tokens: {self.min_tokens} is more than max_tokens, {max_tokens}"
            )
        return Sampling(
            max_tokens=max_tokens,
            min_tokens=self.min_tokens,
            temperature=_or(self.temperature, defaults.get("temperature", 1.0)),
            top_k=max(int(_or(self.top_k, defaults.get("top_k", 0))), 0),
            top_p=_or(self.top_p, defaults.get("top_p", 1.0)),
            min_p=_or(self.min_p, defaults.get("min_p", 0.0)),
            repetition_penalty=_or(
                self.repetition_penalty, defaults.get("repetition_penalty", 1.0)
            ),
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
            logprob_token_ids=tuple(self.logprob_token_ids or ()),
            prompt_logprobs=self.prompt_logprobs,
            grammar=self.grammar(),
            skip_special_tokens=self.skip_special_tokens,
            # -1 is vLLM's word for no limit.
            thinking_token_budget=None
            if self.thinking_token_budget == -1
            else self.thinking_token_budget,
        )


class CompletionFields(SamplingFields):
    """The body of /v1/completions."""

    prompt: str | Listed[str] | Listed[TokenId] | Listed[Listed[TokenId]]
    logprobs: Annotated[int, Field(ge=0)] | None = None
    add_special_tokens: bool = True

    def check(self) -> None:
        """See SamplingFields."""
        super().check()
        if self.logprob_token_ids and self.logprobs is None:
            raise InvalidRequest(LOGPROBS_OF_NOTHING)
        if self.logprob_token_ids and self.max_tokens == 0:
            raise InvalidRequest("logprob_token_ids: with max_tokens 0 no token is chosen")

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


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
