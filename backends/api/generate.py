"""Text generation as front rooms ask for it: prompts in, chunks of text out. Beside `submit`, which
speaks tensors, this is the second thing a model may offer; see `Generator`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from trivet.backends.api.checked import Client
from trivet.backends.api.errors import ServingError
from trivet.backends.api.images import Image, images_of
from trivet.backends.api.request import CancelToken

Messages = Sequence[Mapping[str, Any]]
"""A conversation in OpenAI's form: role, content and what else a chat template reads. A content is
a text, or, where images are in it, a list of parts of type text and image."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the output must match. `kind`: json_schema, json_object, regex, choice, lark,
    structural_tag, whose value is a list of [trigger, begin, schema, end], or calls, whose value
    is of `backends/formats/grammar.py`."""

    kind: str
    value: str
    """A JSON schema, a regular expression, a JSON list of texts, a grammar; empty: any object."""
    field: str = "structured_outputs"
    """Where the request has it, for error texts."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens and when to stop. The defaults change nothing."""

    max_tokens: int | None = None
    """None: as many as the model's length allows."""
    min_tokens: int = 0
    """So many tokens come before an end-of-text or stop token, or the end of a stop text, may."""
    temperature: float = 1.0
    """0: the most likely token always."""
    top_k: int = 0
    """0: all."""
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    """Divides (multiplies below 0) the logits of tokens in prompt and output."""
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time it is in the output."""
    presence_penalty: float = 0.0
    """Taken once from the logits of tokens in the output."""
    seed: int | None = None
    """Equal seeds give equal outputs whatever else runs. None: a new one."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    """Whether the stop text is part of the output."""
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] = ()
    """Empty: all."""
    bad_words: tuple[str, ...] = ()
    """Texts that must not come out."""
    logprobs: int | None = None
    """How many most likely tokens to tell beside each chosen one; None: nothing."""
    logprob_token_ids: tuple[int, ...] = ()
    """Tokens to tell of instead of the most likely ones."""
    prompt_logprobs: int | None = None
    """The same for the prompt's tokens."""
    grammar: Grammar | None = None
    skip_special_tokens: bool = True
    thinking_token_budget: int | None = None
    """So many tokens of thoughts, then the mark is forced that ends them."""


@dataclass(slots=True, eq=False)
class Choices:
    """The outputs that a client wants of one prompt: several requests for the model, one for it."""

    count: int
    most_tokens: int = 0
    """Of the longest that has ended."""
    num_ended: int = 0

    def end(self, num_tokens: int) -> bool:
        """One of them is complete; whether all are now."""
        self.num_ended += 1
        self.most_tokens = max(self.most_tokens, num_tokens)
        return self.num_ended == self.count


@dataclass(slots=True)
class GenerateRequest:
    """One prompt to go on with."""

    id: str
    prompt_ids: Sequence[int]
    sampling: Sampling
    priority: int = 0
    """Lower goes first."""
    cache_salt: str = ""
    """Only requests of equal salt share cached prefixes."""
    deadline: float | None = None
    """In seconds of `time.monotonic`."""
    cancel: CancelToken = field(default_factory=CancelToken)
    prepared_s: float = 0.0
    """How long it took to check it, to write its prompt and to tokenise that."""
    choices: Choices = field(default_factory=lambda: Choices(1))
    """It and its like."""
    on_tokens: Callable[[int], None] | None = None
    """Told how many tokens were read or written, as it happens. On the event loop."""
    callers: tuple[str, ...] = ()
    """The models on whose behalf it is asked; see RequestContext."""
    images: Sequence[Image] = ()
    """Those of the conversation that the prompt was rendered from."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whose a prompt is: for what its making keeps and for the tokens that it takes."""

    tenant: str = ""
    """See InferRequest, also for the other."""
    on_tokens: Callable[[int], None] | None = None


NO_ACCOUNT = Account()


@dataclass(frozen=True, slots=True)
class ChatInput:
    """What a chat template makes a prompt of."""

    messages: Messages
    tools: Sequence[Mapping[str, Any]] | None = None
    """In OpenAI's form."""
    add_generation_prompt: bool = True
    """The prompt ends where the model's answer begins."""
    continue_final_message: bool = False
    """It ends within the last message, which the model goes on with."""
    arguments: Mapping[str, Any] | None = None
    """What else the template reads."""

    @property
    def images(self) -> list[Image]:
        """In the order in which the template shows them."""
        return images_of(self.messages)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token, its log probability and the most likely ones at its place, best first."""

    token_id: int
    text: str
    logprob: float | None
    """None for a prompt's first token."""
    top: tuple[tuple[int, str, float], ...] = ()
    """Token id, text, log probability."""
    is_special: bool = False
    rank: int | None = None
    """1 and the number of likelier tokens; like `logprob`, None for a prompt's first."""

    def ranked(self) -> dict[str, dict[str, float | str | None]]:
        """It and the likeliest by token id, as vLLM writes them. Equally likely ones, which 16-bit
        logits often are, have the same rank."""
        values = [value for _, _, value in self.top]
        own = {str(self.token_id): _ranked(self.logprob, self.rank, self.text)}
        likely = {
            str(token): _ranked(value, 1 + values.index(value), text)
            for token, text, value in self.top
        }
        # First in place, and ranked by the logits, which tell apart more than their logarithms do.
        return own | likely | own


def _ranked(logprob: float | None, rank: int | None, text: str) -> dict[str, float | str | None]:
    return {"logprob": logprob, "rank": rank, "decoded_token": text}


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the output ended."""

    reason: str
    """"stop" or "length"."""
    stop: str | int | None = None
    """The stop text or stop token; None for the end-of-text token."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next piece of output. The last one has `finish`; its text may be empty."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of `token_ids`, where asked for."""
    finish: Finish | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    """On the first chunk, where asked for."""
    num_cached: int = 0
    """Prompt tokens that were in the cache."""
    queue_s: float = 0.0
    """How long the request waited before its first step, on the first chunk."""
    num_preemptions: int = 0
    """How often it was set back because the cache was full, on the last chunk."""


class GenerateSink(Protocol):
    """Receives chunks and exactly one end: a chunk with `finish`, or `fail`. On the event loop."""

    def chunk(self, chunk: Chunk) -> None:
        """The next piece."""

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text."""

    id: int
    text: str
    start: int
    """Where it begins in the text, in characters."""
    stop: int


@dataclass(frozen=True, slots=True)
class GeneratorInfo:
    """What a generating model says of itself."""

    max_model_len: int
    """Prompt and output tokens together."""
    vocabulary_size: int
    max_logprobs: int
    dtype: str
    architecture: str
    eos_token_ids: tuple[int, ...]
    device: str = "cpu"
    host_cache_bytes: int = 0
    """What its cache takes of host memory once it is full."""
    max_num_requests: int = 0
    """Running and waiting ones together."""
    tool_call_parser: str = ""
    """How the model writes calls of tools: a name of `backends/formats`; empty: nobody knows."""
    reasoning_parser: str = ""
    """How the model writes what it thinks: the same; anything else: it does not."""
    chat_template: str = ""
    """As the model brings it; empty: it has none."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """bos_token and the like."""
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    """What the model's makers take where a request does not say: names of Sampling's fields."""
    takes_images: bool = False
    """Whether conversations may have images in them."""
    parent: str = ""
    """Of an adapter: its base's name; it is never meant where no model is named."""
    tools: Sequence[Mapping[str, Any]] = ()
    """In OpenAI's form: those of chats that bring none."""
    response_schema: Mapping[str, Any] | None = None
    """What answers match where a request does not say: a JSON schema."""
    is_ensemble: bool = False
    """Whether it is asked through the steps of an ensemble: never meant where no model is named."""


@runtime_checkable
class Generator(Protocol):
    """A model that generates text. Called on the event loop only."""

    @property
    def info(self) -> GeneratorInfo:
        """What does not change while the model is loaded."""

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises: every outcome goes to the sink, exactly one end."""

    async def compose(self, prompt: str, account: Account = NO_ACCOUNT, /) -> str:
        """What the model reads for a client's plain prompt: the prompt itself, or what the steps
        of an ensemble make of it, on the account. Raises a ServingError."""

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a text. Raises InvalidRequest."""

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """The tokens of a text with their places. Raises InvalidRequest."""

    async def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids. Raises InvalidRequest for ids that are none."""

    async def spellings(self, token_ids: Sequence[int]) -> list[str]:
        """How the vocabulary spells token ids: bytes of texts may have letters of their own there.
        Raises InvalidRequest for ids that are none."""

    async def render(self, chat: ChatInput, account: Account = NO_ACCOUNT, /) -> str:
        """The conversation as the model's chat template writes it, or as the steps of an ensemble
        do, on the account. Its images are read, and their tokens are in it: what it is encoded to
        is generated from together with `chat.images`. Raises a ServingError."""


@runtime_checkable
class AsksAnother(Protocol):
    """A generating model that asks another one: which version of that, is chosen once a request."""

    @property
    def engine(self) -> str:
        """The model that computes all of it; empty where others compute besides."""

    def for_one_request(self, key: int | str = "", client: Client | None = None) -> Generator:
        """It, for all that one request of this key and client asks of it. Raises a
        ServingError."""


@runtime_checkable
class PrefixCaching(Protocol):
    """A generating model that keeps what it has computed of prompts, for others that begin so."""

    def reset_prefix_cache(self, *, is_anew: bool) -> None:
        """Forgets it, before whatever is asked from now on. `is_anew`: requests that run compute
        what they have once more."""
