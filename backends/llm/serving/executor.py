"""The server's side of a language model: text in, text out, over an engine in its own process."""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from trivet.backends.api import (
    NO_ACCOUNT,
    Account,
    Cause,
    ChatInput,
    CheckedRequest,
    GenerateRequest,
    GenerateSink,
    GenerateStatistics,
    GeneratorInfo,
    InvalidRequest,
    ModelNotReady,
    Observer,
    QueueFull,
    ServingError,
    Sink,
    Token,
    Unavailable,
    Unsupported,
)
from trivet.backends.llm.messages import Outputs, Submit, SubmittedImage
from trivet.backends.llm.process.client import EngineClient
from trivet.backends.llm.process.process import StartedEngine
from trivet.backends.llm.serving.images import ImageReader
from trivet.backends.llm.serving.requests import Running
from trivet.backends.llm.serving.statistics import MeasuredSink
from trivet.backends.llm.serving.tensor_form import TensorSink, parse_tensors
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
LONG_TEXT = 4096
"""Texts longer than that are tokenised in a thread: they would hold up the event loop."""
MAX_TEXTS = 128
MAX_TEXT_CHARACTERS = 1000
"""Of those that end an output, or must not be in it."""
IMAGE_IN_TEXT = "](data:image/"
"""As text-generation-inference takes images in prompts."""
SILENT = "its engine shows no sign of life; it is killed after a while"
_STOPPING = "the model is being unloaded"


class LlmExecutor:
    """An Executor and a Generator. Owned by the event loop."""

    def __init__(
        self,
        name: str,
        version: int,
        engine: StartedEngine,
        settings: EngineSettings,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        observer: Observer | None = None,
        images: ImageReader | None = None,
    ) -> None:
        self._name = name
        self._images = images
        self._observer = observer
        self._num_waits = 0.0
        self._version = version
        self._tokenizer = tokenizer
        self._template = template
        self._running: dict[str, Running] = {}
        self._num_submitted = 0
        self._is_stopping = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = EngineClient(engine, settings, self)
        known = template.tool_call_parser if template is not None else ""
        self._info = replace(
            GeneratorInfo(**engine.info),
            tool_call_parser=settings.tool_call_parser or known,
            reasoning_parser=settings.reasoning_parser
            or ("" if template is None else template.reasoning_parser),
            chat_template="" if template is None else template.source,
            special_tokens={} if template is None else template.special_tokens,
            takes_images=images is not None and template is not None and template.shows_images,
        )
        self._statistics = GenerateStatistics(
            self._info.max_model_len,
            {
                "block_size": str(settings.block_size),
                "cache_dtype": self._info.dtype,
                "enable_prefix_caching": str(settings.prefix_caching),
            },
        )

    @property
    def info(self) -> GeneratorInfo:
        """What does not change while the model is loaded."""
        return self._info

    @property
    def stats(self) -> Mapping[str, float]:
        """The engine's last numbers."""
        return self._client.stats

    @property
    def statistics(self) -> GenerateStatistics:
        """What has happened to its requests."""
        return self._statistics

    # -- Executor ------------------------------------------------------------------------------

    def submit(self, request: CheckedRequest, sink: Sink) -> None:
        """The tensor form: text_input, stream, sampling_parameters in, text_output out."""
        task = asyncio.get_running_loop().create_task(self._submit(request, sink))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _submit(self, request: CheckedRequest, sink: Sink) -> None:
        begun_s = time.monotonic()
        try:
            parsed = parse_tensors(request)
            ids = await self.encode(parsed.text, add_special_tokens=True)
        except ServingError as error:
            sink.fail(error)
            return
        generate = GenerateRequest(
            request.id,
            ids,
            parsed.sampling,
            priority=request.priority,
            cache_salt=request.tenant,
            deadline=request.deadline,
            cancel=request.cancel,
            prepared_s=time.monotonic() - begun_s,
            on_tokens=request.on_tokens,
        )
        self.generate(generate, TensorSink(request, parsed, len(ids), self._version, sink))

    async def drain(self) -> None:
        """Takes no new request and returns when every submitted one has ended."""
        self._is_stopping = True
        await self._empty.wait()

    async def close(self) -> None:
        """Ends what is left with an error and stops the engine."""
        self._is_stopping = True
        for running in list(self._running.values()):
            running.fail(Unavailable(f"model '{self._name}': {_STOPPING}"))
        if self._images is not None:
            self._images.close()
        await self._client.close()

    def is_ready(self) -> bool:
        """Whether the engine is there and has been heard lately."""
        return self._client.is_ready and not self._is_stopping

    def trouble(self) -> str:
        """See Supervised."""
        return "" if self._client.is_ready else self._client.trouble or SILENT

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return self._client.deaths

    # -- Generator -----------------------------------------------------------------------------

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises: every outcome goes to the sink, exactly one end."""
        sink = MeasuredSink(request, sink, self._statistics)
        try:
            if self._is_stopping:
                raise ModelNotReady(f"model '{self._name}': {_STOPPING}")
            self._check_room()
            message = self._message(request)
            self._client.submit(message)
        except ServingError as error:
            sink.fail(error)
            return
        # The engine's id is ours: clients may use one id twice at a time.
        request.id = message.id
        request.images = ()  # the engine has them
        self._empty.clear()
        running = Running(request, sink, self._tokenizer, self._on_end)
        if running.engine_has_it:
            self._running[message.id] = running

    def _check_room(self) -> None:
        """Raises QueueFull: at once, where the engine would say so behind its present step."""
        most = self._info.max_num_requests
        if len(self._running) >= most:
            raise QueueFull(
                f"model '{self._name}' has {len(self._running)} requests, the limit is {most} "
                "(max_num_seqs + max_num_waiting); try again later"
            )

    def _message(self, request: GenerateRequest) -> Submit:
        sampling = request.sampling
        self._check(request)
        _check_texts("stop", sampling.stop)
        _check_texts("bad_words", sampling.bad_words)
        self._num_submitted += 1
        ends = () if sampling.ignore_eos else self._info.eos_token_ids
        bad_words = [
            self._tokenizer.encode(form, add_special_tokens=False)
            for word in sampling.bad_words
            for form in (word, f" {word.lstrip()}")
        ]
        return Submit(
            f"{self._num_submitted}",
            list(request.prompt_ids),
            sampling,
            secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64,
            [ids for ids in bad_words if ids],
            [*ends, *sampling.stop_token_ids],
            request.priority,
            request.cache_salt,
            [SubmittedImage(each.digest, each.num_tokens, each.file) for each in request.images],
        )

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

    def _on_end(self, running: Running) -> None:
        self._running.pop(running.id, None)
        if running.engine_has_it:
            running.engine_has_it = False
            self._client.abort(running.id)
        if not self._running:
            self._empty.set()

    # -- EngineListener ------------------------------------------------------------------------

    def on_outputs(self, outputs: Outputs) -> None:
        """What a step gave."""
        self._note_waits(outputs.stats.get("host_synchronisations", 0))
        for step in outputs.steps:
            self._statistics.note_step(step)
        for request_id in outputs.preempted:
            if request_id in self._running:
                self._running[request_id].num_preemptions += 1
        for output in outputs.each():
            running = self._running.get(output.id)
            if running is not None:
                running.on_output(output)

    def _note_waits(self, count: float) -> None:
        if count != self._num_waits and self._observer is not None:
            self._observer.synchronised(int(count - self._num_waits))
        self._num_waits = count

    def on_lost(self, error: ServingError) -> None:
        """The engine died: its requests end now. The next one counts from 0."""
        self._num_waits = 0
        for running in list(self._running.values()):
            running.engine_has_it = False
            running.fail(error)

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
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return await asyncio.to_thread(
            self._tokenizer.encode, text, add_special_tokens=add_special_tokens
        )

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[Token]:
        """The tokens of a text with their places."""
        self._check_size(text)
        return await asyncio.to_thread(
            self._tokenizer.tokenize, text, add_special_tokens=add_special_tokens
        )

    def _check_size(self, text: str) -> None:
        """Raises InvalidRequest for what is too long however it is tokenised: that takes time."""
        limit = self._info.max_model_len * self._tokenizer.longest_token
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
            self._tokenizer.decode, token_ids, skip_special_tokens=skip_special_tokens
        )

    async def spellings(self, token_ids: Sequence[int]) -> list[str]:
        """How the vocabulary spells token ids. Raises InvalidRequest for ids that are none."""
        self._check_ids(token_ids)
        return await asyncio.to_thread(self._tokenizer.spellings, token_ids)

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        for token in token_ids:
            if not 0 <= token < self._info.vocabulary_size:
                raise InvalidRequest(
                    f"tokens: {token} is not in the vocabulary of {self._info.vocabulary_size}"
                )

    async def render(self, chat: ChatInput, _account: Account = NO_ACCOUNT, /) -> str:
        """The conversation as the model's chat template writes it. Raises InvalidRequest."""
        images, template, reader = chat.images, self._template, self._images
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
