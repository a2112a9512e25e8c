"""The fields of TGI's requests; a wrong one is named in the error, with the value given.

Unknown fields are ignored, as in TGI. Known ones that are not offered are refused.
"""

import json
import secrets
from typing import Annotated, Any, Literal

from pydantic import Field

from trivet.backends.api import Grammar, InvalidRequest, Sampling, Unsupported
from trivet.server.http.openai.fields import Fields, Finite, Listed
from trivet.server.http.openai.grammars import limited

MAX_BEST_OF = 2
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 1000
MAX_TOP_TOKENS = 5

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[Finite, Field(gt=0, le=1)]
"""TGI refuses 1, which means "all"; it is taken here."""


class GrammarFields(Fields):
    """What the output must match."""

    type: Literal["json", "json_object", "regex", "json_schema"]
    value: Any = None

    def grammar(self) -> Grammar:
        """Raises InvalidRequest."""
        if self.type == "json_object" and self.value is None:
            return Grammar("json_object", "")
        if self.type == "regex":
            return limited(Grammar("regex", self._text(), "grammar.value"))
        value = self.value
        if self.type == "json_schema" and isinstance(value, dict) and "schema" in value:
            value = value["schema"]
        if not isinstance(value, dict | str):
            raise InvalidRequest("grammar.value: it must be a JSON schema")
        text = value if isinstance(value, str) else json.dumps(value)
        return limited(Grammar("json_schema", text, "grammar.value"))

    def _text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            raise InvalidRequest("grammar.value: it must be a regular expression")
        return self.value


class Parameters(Fields):
    """`parameters` of a request. The defaults of what is not given are greedy."""

    best_of: Annotated[int, Field(ge=1, le=MAX_BEST_OF)] | None = None
    temperature: Annotated[Finite, Field(gt=0)] | None = None
    repetition_penalty: Annotated[Finite, Field(gt=0)] | None = None
    frequency_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    top_k: Positive | None = None
    top_p: Share | None = None
    typical_p: Share | None = None
    do_sample: bool | None = False
    max_new_tokens: Positive | None = None
    return_full_text: bool | None = None
    stop: Annotated[Listed[str], Field(max_length=MAX_STOPS)] | None = None
    truncate: Positive | None = None
    watermark: bool | None = False
    details: bool | None = False
    decoder_input_details: bool | None = False
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    top_n_tokens: Annotated[int, Field(ge=0, le=MAX_TOP_TOKENS)] | None = None
    grammar: GrammarFields | None = None
    adapter_id: str | None = None

    def check(self, *, is_stream: bool) -> None:
        """What no single field can say. Raises InvalidRequest, Unsupported."""
        if self.watermark:
            raise Unsupported("watermark: it is not offered here")
        for stop in self.stop or ():
            if not 0 < len(stop) <= MAX_STOP_CHARACTERS:
                raise InvalidRequest(
                    f"stop: a text of {len(stop)} characters; 1 to {MAX_STOP_CHARACTERS} may be"
                )
        if self.num_outputs > 1:
            self._check_best_of(is_stream=is_stream)
        if self.decoder_input_details and is_stream:
            raise InvalidRequest(
                "decoder_input_details: it is not supported when streaming tokens; use /generate"
            )

    def _check_best_of(self, *, is_stream: bool) -> None:
        if is_stream:
            raise InvalidRequest("best_of: only 1 is allowed when streaming tokens")
        if not self.samples:
            raise InvalidRequest(
                "best_of: you must use sampling when it is more than 1; set do_sample"
            )
        if self.seed is not None:
            raise InvalidRequest("seed: it must not be set when best_of is more than 1")

    @property
    def num_outputs(self) -> int:
        """How many outputs are computed, of which the best is told."""
        return self.best_of or 1

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn; otherwise each is the likeliest."""
        return bool(
            self.do_sample
            or self.temperature not in (None, 1.0)
            or self.top_k is not None
            or (self.top_p or 1.0) < 1.0
            or (self.typical_p or 1.0) < 1.0
        )

    def new_seed(self) -> int | None:
        """The given seed or a new one; None where nothing is drawn."""
        if not self.samples:
            return None
        return secrets.randbits(64) if self.seed is None else self.seed

    def sampling(self, seed: int | None, *, scored: bool) -> Sampling:
        """How to choose tokens. `scored`: log probabilities are wanted. Raises InvalidRequest."""
        return Sampling(
            max_tokens=self.max_new_tokens,
            temperature=(self.temperature or 1.0) if self.samples else 0.0,
            top_k=self.top_k or 0,
            top_p=self.top_p or 1.0,
            typical_p=self.typical_p or 1.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            seed=seed,
            stop=tuple(self.stop or ()),
            include_stop=True,
            logprobs=(self.top_n_tokens or 0) if scored else None,
            prompt_logprobs=0 if self.decoder_input_details else None,
            grammar=None if self.grammar is None else self.grammar.grammar(),
        )


class GenerateFields(Fields):
    """The body of /generate, /generate_stream and POST /."""

    inputs: str
    parameters: Parameters | None = None
    stream: bool = False
    """Of POST / only."""
    model: str | None = None

    def check(self, *, is_stream: bool) -> Parameters:
        """The parameters, checked. Raises InvalidRequest, Unsupported."""
        if not self.inputs:
            raise InvalidRequest("inputs: it cannot be empty")
        parameters = self.parameters or Parameters()
        parameters.check(is_stream=is_stream)
        return parameters


class TokenizeFields(Fields):
    """The body of /tokenize, TGI's form."""

    inputs: str
    add_special_tokens: bool = True
    model: str | None = None


class ChatTokenizeFields(Fields):
    """What /chat_tokenize reads of a chat request."""

    messages: Annotated[Listed[dict[str, Any]], Field(min_length=1)]
    model: str | None = None
    tools: Listed[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool = True
