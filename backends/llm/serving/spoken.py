"""What a generating model is for its clients: texts and tokens, and requests checked against its
limits. A base and the adapters over it have one each."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    ChatInput,
    CheckedRequest,
    GenerateRequest,
    GenerateSink,
    GeneratorInfo,
    InvalidRequest,
    Sampling,
    ServingError,
    Sink,
    Token,
    Unsupported,
)
from trivet.backends.formats.registry import thought_marks
from trivet.backends.generating.tensor_form import answer_tensors, parse_tensors
from trivet.backends.llm.messages import Submit, SubmittedImage
from trivet.backends.llm.serving.images import ImageReader
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tokenizer import Tokenizer

IMAGE_IN_TEXT = "](data:image/"
"""As text-generation-inference takes images in prompts."""
LONG_TEXT = 4096
"""Texts longer than that are tokenised in a thread: they would hold up the event loop."""
MAX_TEXTS = 128
MAX_TEXT_CHARACTERS = 1000
"""Of those that end an output, or must not be in it."""


class Spoken(ABC):
    """The part of a Generator, and of an Executor, that knows texts. Owned by the event loop."""

    def __init__(
        self,
        name: str,
        version: int,
        info: GeneratorInfo,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        images: ImageReader | None = None,
    ) -> None:
        takes_images = images is not None and template is not None and template.shows_images
        info = replace(info, takes_images=takes_images)
        self._images = images
        self._name = name
        self._version = version
        self._info = info
        self.tokenizer = tokenizer
        self.template = template
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def info(self) -> GeneratorInfo:
        """What does not change while the model is loaded."""
        return self._info

    @abstractmethod
    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """See Generator."""

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """The tensor form: text_input, stream, sampling_parameters in, text_output out."""
        task = asyncio.get_running_loop().create_task(self._submit(request, sink))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _submit(self, request: CheckedRequest, sink: Sink) -> None:
        try:
            parsed = parse_tensors(request)
        except ServingError as error:
            sink.fail(error)
            return
        await answer_tensors(self, request, parsed, self._version, sink)

    # -- requests ------------------------------------------------------------------------------

    def message(self, request: GenerateRequest, request_id: str, adapter: str) -> Submit:
        """A request as the engine takes it, of an adapter's key. Raises InvalidRequest."""
        sampling = request.sampling
        self._check(request)
        _check_texts("stop", sampling.stop)
        _check_texts("bad_words", sampling.bad_words)
        ends = () if sampling.ignore_eos else self._info.eos_token_ids
        bad_words = [
            self.tokenizer.encode(form, add_special_tokens=False)
            for word in sampling.bad_words
            for form in (word, f" {word.lstrip()}")
        ]
        return Submit(
            request_id,
            list(request.prompt_ids),
            sampling,
            secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64,
            [ids for ids in bad_words if ids],
            [*ends, *sampling.stop_token_ids],
            request.priority,
            request.cache_salt,
            self._thought_marks(sampling),
            adapter,
            [
                SubmittedImage(each.digest, each.num_tokens, each.where, each.file)
                for each in request.images
            ],
        )

    def _thought_marks(self, sampling: Sampling) -> list[list[int]]:
        """The tokens before and behind thoughts, where these are limited. Raises InvalidRequest."""
        if sampling.thinking_token_budget is None:
            return []
        grammar = sampling.grammar
        if grammar is not None and grammar.kind != "calls":
            return []  # What it forces has no thoughts; calls may stand behind some.
        marks = thought_marks(self._info.reasoning_parser)
        if marks is None and grammar is not None:
            return []
        if marks is None:
            raise InvalidRequest(
                f"thinking_token_budget: how model '{self._name}' begins and ends its thoughts is "
                "not known; model parameter reasoning_parser names that"
            )
        return [self.tokenizer.encode(mark, add_special_tokens=False) for mark in marks]

    def _check(self, request: GenerateRequest) -> None:
        """Raises InvalidRequest for what the engine could not do."""
        size, limit = len(request.prompt_ids), self._info.max_model_len
        wanted = request.sampling.max_tokens
        room = limit - size
        if size == 0:
            raise InvalidRequest("prompt: it has no tokens; at least 1 is needed")
        if room < 1:
            raise InvalidRequest(
                f"prompt: it has {size} tokens, and prompt and output together are limited to "
                f"{limit} (max_model_len); shorten it"
            )
        if wanted is not None and wanted > room:
            raise InvalidRequest(
                f"max_tokens: {wanted} tokens after a prompt of {size} are more than the "
                f"{limit} that prompt and output together may have (max_model_len)"
            )
        largest = max(request.prompt_ids)
        if largest >= self._info.vocabulary_size or min(request.prompt_ids) < 0:
            raise InvalidRequest(
                f"prompt: token id {largest if largest > 0 else min(request.prompt_ids)} is not in "
                f"the vocabulary of {self._info.vocabulary_size}"
            )
        _check_sampling(request, self._info)

    # -- text ----------------------------------------------------------------------------------

    async def compose(self, prompt: str, _account: Account = NO_ACCOUNT, /) -> str:
        """The model reads a prompt as it is."""
        if self._images is not None and IMAGE_IN_TEXT in prompt:
            raise InvalidRequest(
                "prompt: it has an image in it, and images are taken by /v1/chat/completions alone"
            )
        return prompt

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The token ids of a text."""
        self._check_size(text)
        if len(text) <= LONG_TEXT:
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(
            self.tokenizer.encode, text, add_special_tokens=add_special_tokens
        )

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """The tokens of a text with their places."""
        self._check_size(text)
        return await asyncio.to_thread(
            self.tokenizer.tokenize, text, add_special_tokens=add_special_tokens
        )

    def _check_size(self, text: str) -> None:
        """Raises InvalidRequest for what is too long however it is tokenised: that takes time."""
        limit = self._info.max_model_len * self.tokenizer.longest_token
        if len(text) > limit:
            raise InvalidRequest(
                f"prompt: it has {len(text)} characters; at most {limit} can be the "
                f"{self._info.max_model_len} tokens that prompt and output together may have "
                "(max_model_len)"
            )

    async def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """The text of token ids. Raises InvalidRequest for ids that are none."""
        self._check_ids(token_ids)
        return await asyncio.to_thread(
            self.tokenizer.decode, token_ids, skip_special_tokens=skip_special_tokens
        )

    async def spellings(self, token_ids: Sequence[int]) -> list[str]:
        """How the vocabulary spells token ids. Raises InvalidRequest for ids that are none."""
        self._check_ids(token_ids)
        return await asyncio.to_thread(self.tokenizer.spellings, token_ids)

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        for token in token_ids:
            if not 0 <= token < self._info.vocabulary_size:
                raise InvalidRequest(
                    f"tokens: {token} is not in the vocabulary of {self._info.vocabulary_size}"
                )

    async def render(self, chat: ChatInput, _account: Account = NO_ACCOUNT, /) -> str:
        """The conversation as the model's chat template writes it. Raises InvalidRequest."""
        images, template, reader = chat.images, self.template, self._images
        if images and reader is None:
            raise InvalidRequest(
                f"{images[0].where}: model '{self._name}' reads no images; send text alone"
            )
        if template is None:
            raise Unsupported(
                f"messages: model '{self._name}' has no chat template; use /v1/completions"
            )
        if reader is None or not images:
            return await asyncio.to_thread(template.render, chat)
        reader.check(images, template)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(reader.threads, reader.render, chat, images, template)


def _check_texts(name: str, texts: Sequence[str]) -> None:
    """Before each is looked for at every token, or tokenised."""
    if len(texts) > MAX_TEXTS:
        raise InvalidRequest(f"{name}: {len(texts)} texts; at most {MAX_TEXTS} are allowed")
    for text in texts:
        if not isinstance(text, str):
            raise InvalidRequest(f"{name}: it must be a list of texts")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise InvalidRequest(
                f"{name}: a text of {len(text)} characters; at most {MAX_TEXT_CHARACTERS} may be"
            )


def _check_sampling(request: GenerateRequest, info: GeneratorInfo) -> None:
    sampling = request.sampling
    for name, ids in (
        ("logit_bias", sampling.logit_bias),
        ("allowed_token_ids", sampling.allowed_token_ids),
        ("stop_token_ids", sampling.stop_token_ids),
        ("logprob_token_ids", sampling.logprob_token_ids),
    ):
        for token in ids:
            if not 0 <= token < info.vocabulary_size:
                raise InvalidRequest(
                    f"{name}: token id {token} is not in the vocabulary of {info.vocabulary_size}"
                )
    for name, count in (
        ("logprobs", sampling.logprobs),
        ("prompt_logprobs", sampling.prompt_logprobs),
    ):
        if count is not None and count > info.max_logprobs:
            raise InvalidRequest(
                f"{name}: {count} are more than {info.max_logprobs} (model parameter max_logprobs)"
            )
