"""The server's side of a language model: text in, text out, over an engine in its own process."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from trivet.backends.api import (
    Cause,
    Executor,
    GenerateRequest,
    GenerateSink,
    GenerateStatistics,
    GeneratorInfo,
    Instance,
    ModelNotReady,
    Observer,
    QueueFull,
    ServingError,
    Unavailable,
    Use,
)
from trivet.backends.api.sleeping import OnWanted
from trivet.backends.llm.messages import AdapterRead, Outputs, Submit
from trivet.backends.llm.process.client import EngineClient
from trivet.backends.llm.process.process import StartedEngine
from trivet.backends.llm.serving.adapted import AdaptedExecutor
from trivet.backends.llm.serving.adapter_folders import ReadFolder
from trivet.backends.llm.serving.images import ImageReader
from trivet.backends.llm.serving.requests import Running
from trivet.backends.llm.serving.shelf import AdapterShelf
from trivet.backends.llm.serving.spoken import Spoken
from trivet.backends.llm.serving.statistics import MeasuredSink
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
SILENT = "its engine shows no sign of life; it is killed after a while"
_STOPPING = "the model is being unloaded"


@runtime_checkable
class HasEngine(Protocol):
    """An instance that was opened and not served yet."""

    def take_engine(self) -> StartedEngine:
        """Its engine, which is the caller's from then on."""


class LlmExecutor(Spoken):
    """An Executor and a Generator, of a base and the adapters over it. Owned by the event loop."""

    def __init__(
        self,
        name: str,
        version: int,
        engine: StartedEngine,
        settings: EngineSettings,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        observer: Observer | None = None,
        adapters: Path | None = None,
        images: ImageReader | None = None,
    ) -> None:
        """`adapters`: the folder of those over it."""
        info = _info(engine, settings, template)
        super().__init__(name, version, info, tokenizer, template, images)
        self._observer = observer
        self._num_waits = 0.0
        self._running: dict[str, Running] = {}
        self._num_submitted = 0
        self._is_stopping = False
        self._on_wanted: OnWanted | None = None
        """Who is told of requests; None while there is to be an engine."""
        self._why_asleep = ""
        self._held: dict[str, Submit] = {}
        """Requests that came since it fell asleep."""
        self._num_adapting = 0
        """Loads of adapters that have not ended."""
        self._awake = asyncio.Event()
        """Set when it has woken, or did not."""
        self._empty = asyncio.Event()
        self._empty.set()
        self._fewer: asyncio.Event | None = None
        """Set when a request has ended; only while somebody waits."""
        self._client = EngineClient(engine, settings, self)
        self._settings = settings
        self._shelf = AdapterShelf(name, adapters, self._client, self._adapted)
        self._statistics = GenerateStatistics(
            self._info.max_model_len,
            {
                "block_size": str(settings.block_size),
                "cache_dtype": self._info.dtype,
                "enable_prefix_caching": str(settings.prefix_caching),
            },
            settings.max_loras,
        )

    @property
    def stats(self) -> Mapping[str, float]:
        """The engine's last numbers."""
        return self._client.stats

    @property
    def statistics(self) -> GenerateStatistics:
        """What has happened to its requests."""
        return self._statistics

    # -- Executor ------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Takes no new request and returns when every submitted one has ended."""
        self._is_stopping = True
        await self._empty.wait()

    async def close(self) -> None:
        """Ends what is left with an error and stops the engine."""
        self._is_stopping = True
        self._shelf.close()
        for running in list(self._running.values()):
            running.fail(Unavailable(f"model '{self._name}': {_STOPPING}"))
        self._why_asleep = _STOPPING
        self._awake.set()
        if self._images is not None:
            self._images.close()
        await self._client.close()

    def is_ready(self) -> bool:
        """Whether the engine is there and has been heard lately."""
        is_well = not self._why_asleep if self.is_asleep else self._client.is_ready
        return is_well and not self._is_stopping

    def trouble(self) -> str:
        """See Supervised."""
        if self.is_asleep:
            return self._why_asleep
        return "" if self._client.is_ready else self._client.trouble or SILENT

    def deaths(self) -> Mapping[Cause, int]:
        """See Supervised."""
        return self._client.deaths

    # -- Generator -----------------------------------------------------------------------------

    def generate(self, request: GenerateRequest, sink: GenerateSink) -> None:
        """Never blocks and never raises: every outcome goes to the sink, exactly one end."""
        self.run(request, sink, self)

    def run(
        self,
        request: GenerateRequest,
        sink: GenerateSink,
        spoken: Spoken,
        adapter: str = "",
        key: str = "",
    ) -> None:
        """The same for the base or one of its adapters, by its name and its key in the engine."""
        sink = MeasuredSink(request, sink, self._statistics, adapter=adapter)
        try:
            if self._is_stopping:
                raise ModelNotReady(f"model '{self._name}': {_STOPPING}")
            self._check_room()
            self._num_submitted += 1
            message = spoken.message(request, f"{self._num_submitted}", key)
            if self._on_wanted is None:
                self._client.submit(message)
            else:
                self._held[message.id] = message
        except ServingError as error:
            sink.fail(error)
            return
        # The engine's id is ours: clients may use one id twice at a time.
        request.id = message.id
        request.images = ()  # the engine has them
        self._empty.clear()
        running = Running(request, sink, spoken.tokenizer, self._on_end)
        if running.engine_has_it:
            self._running[message.id] = running
            if self._on_wanted is not None:
                self._on_wanted(request.callers)

    def _check_room(self) -> None:
        """Raises QueueFull: at once, where the engine would say so behind its present step."""
        most = self._info.max_num_requests
        if len(self._running) >= most:
            raise QueueFull(
                f"model '{self._name}' has {len(self._running)} requests, the limit is {most} "
                "(max_num_seqs + max_num_waiting); try again later"
            )

    def _on_end(self, running: Running) -> None:
        self._running.pop(running.id, None)
        if self._held.pop(running.id, None) is not None:
            running.engine_has_it = False
        if running.engine_has_it:
            running.engine_has_it = False
            self._client.abort(running.id)
        if not self._running:
            self._empty.set()
        if self._fewer is not None:
            self._fewer.set()
            self._fewer = None

    # -- Sleeps --------------------------------------------------------------------------------

    @property
    def is_asleep(self) -> bool:
        """See Sleeps."""
        return self._on_wanted is not None

    def use(self) -> Use:
        """See Sleeps. An engine that is being started again is left alone."""
        is_back = self.is_asleep or self._client.is_ready
        has_begun = len(self._running) > len(self._held)
        is_busy = bool(self._running) or self._num_adapting > 0 or not is_back
        return Use(self._num_submitted, is_busy, has_begun)

    async def sleep(self, on_wanted: OnWanted) -> None:
        """See Sleeps."""
        self._on_wanted = on_wanted
        self._awake.clear()
        while len(self._running) > len(self._held):
            self._fewer = self._fewer or asyncio.Event()
            await self._fewer.wait()
        await self._client.part()
        self._shelf.forget_pending(ModelNotReady(f"model '{self._name}' has been put to sleep"))
        self._num_waits = 0.0

    def wake(self, instances: Sequence[tuple[str, Instance]]) -> None:
        """See Sleeps."""
        ((_, instance),) = instances
        assert isinstance(instance, HasEngine), "opened by the same backend"
        self._on_wanted, self._why_asleep = None, ""
        self._client.take(instance.take_engine())
        held, self._held = self._held, {}
        for message in held.values():
            self._submit_late(message)
        self._awake.set()

    def _submit_late(self, message: Submit) -> None:
        try:
            self._client.submit(message)
        except ServingError as error:
            running = self._running[message.id]
            running.engine_has_it = False
            running.fail(error)

    def stay_asleep(self, error: ModelNotReady) -> None:
        """See Sleeps."""
        self._why_asleep = error.message
        for key in list(self._held):
            self._running[key].fail(error)
        self._awake.set()

    async def _be_awake(self) -> None:
        """Raises ModelNotReady where it does not wake."""
        if self._on_wanted is None:
            return
        self._awake.clear()
        self._on_wanted(())
        await self._awake.wait()
        if self._why_asleep:
            raise ModelNotReady(self._why_asleep)

    # -- Adapting ------------------------------------------------------------------------------

    @property
    def adapters(self) -> Mapping[str, Executor]:
        """See Adapting."""
        return self._shelf.ready

    @property
    def adapter_troubles(self) -> Mapping[str, str]:
        """See Adapting."""
        return self._shelf.troubles

    async def follow_adapters(self) -> None:
        """See Adapting. One that sleeps looks when it wakes."""
        if not self.is_asleep:
            await self._shelf.follow()

    async def load_adapter(self, name: str, folder: str, *, in_place: bool) -> None:
        """See Adapting."""
        self._num_adapting += 1
        try:
            await self._be_awake()
            await self._shelf.load(name, folder, in_place=in_place)
        finally:
            self._num_adapting -= 1

    async def unload_adapter(self, name: str) -> None:
        """See Adapting."""
        await self._shelf.unload(name)

    def _adapted(self, name: str, read: AdapterRead, files: ReadFolder) -> AdaptedExecutor:
        """An adapter over this base. `files`: of its folder."""
        template = files.template or self.template
        info = replace(
            _described(self._info, self._settings, template),
            vocabulary_size=read.vocabulary_size,
            parent=self._name,
            eos_token_ids=tuple(dict.fromkeys((*files.eos_token_ids, *self._info.eos_token_ids))),
        )
        tokenizer = files.tokenizer or self.tokenizer
        return AdaptedExecutor(self, name, read.key, self._version, info, tokenizer, template)

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

    def on_adapter(self, read: AdapterRead) -> None:
        """What came of loading one."""
        self._shelf.note(read)

    def on_back(self) -> None:
        """The engine knows no adapter."""
        self._shelf.restore()

    def on_lost(self, error: ServingError) -> None:
        """The engine died: its requests end now. The next one counts from 0."""
        self._num_waits = 0
        self._shelf.forget_pending(error)
        for running in list(self._running.values()):
            if running.id not in self._held:
                running.engine_has_it = False
                running.fail(error)

    # -- PrefixCaching -------------------------------------------------------------------------

    def reset_prefix_cache(self, *, is_anew: bool) -> None:
        """Forgets what prompts begin with. Requests that come afterwards find nothing of it."""
        self._client.reset_prefix_cache(is_anew=is_anew)


def _info(
    engine: StartedEngine, settings: EngineSettings, template: ChatTemplate | None
) -> GeneratorInfo:
    return _described(GeneratorInfo(**engine.info), settings, template)


def _described(
    info: GeneratorInfo, settings: EngineSettings, template: ChatTemplate | None
) -> GeneratorInfo:
    """With what a chat template says of the model."""
    if template is None:
        return replace(
            info,
            tool_call_parser=settings.tool_call_parser,
            reasoning_parser=settings.reasoning_parser,
        )
    return replace(
        info,
        tool_call_parser=settings.tool_call_parser or template.tool_call_parser,
        reasoning_parser=settings.reasoning_parser or template.reasoning_parser,
        chat_template=template.source,
        special_tokens=template.special_tokens,
    )
