"""The server's side of one engine: frames out and in, watched, started again when it dies."""

import asyncio
import logging
import time
from collections import Counter, deque
from contextlib import ExitStack
from itertools import islice
from typing import Protocol

from trivet.backends.api import (
    Cause,
    InstanceDied,
    InvalidRequest,
    LoadFailed,
    QueueFull,
    ServingError,
)
from trivet.backends.llm.messages import (
    MAX_FRAME_BYTES,
    Abort,
    AdapterRead,
    FrameReader,
    Heartbeat,
    LoadAdapter,
    Logged,
    Message,
    Outputs,
    ResetPrefixCache,
    Submit,
    UnloadAdapter,
    pack,
    pack_in_parts,
)
from trivet.backends.llm.process.logs import log_of_engine
from trivet.backends.llm.process.process import StartedEngine, parent_of_engines
from trivet.backends.llm.process.starting import start_engine
from trivet.backends.llm.settings import EngineSettings
from trivet.backends.process.ending import Ending

log = logging.getLogger(__name__)
SILENT_S = 1.0
"""An engine that has not been heard for so long is not ready."""
_WATCH_S = 0.25
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_READ_BYTES = 1 << 18
_PARTS_AT_ONCE = 64
MAX_UNSENT_BYTES = 256 * 1024 * 1024
"""While the engine does not read. Each choice of a request has its images again."""
_END_S = 1.0
"""Between losing the connection to an engine and its end, by which its exit code is its own."""


class EngineListener(Protocol):
    """Whom the client tells. On the event loop."""

    def on_outputs(self, outputs: Outputs) -> None:
        """What a step gave."""

    def on_adapter(self, read: AdapterRead) -> None:
        """What came of loading one."""

    def on_back(self) -> None:
        """Another engine is there, which has to be told all again."""

    def on_lost(self, error: ServingError) -> None:
        """The engine is gone: nothing that was submitted will be answered."""


class EngineClient:
    """Owned by the event loop. Starts with a loaded engine, keeps one running until `close`."""

    def __init__(
        self, engine: StartedEngine, settings: EngineSettings, listener: EngineListener
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._engine: StartedEngine | None = None
        self._is_closed = False
        self._name = engine.name
        self._delay_s = _FIRST_DELAY_S
        self._restart: asyncio.Task[None] | None = None
        self._leases = ExitStack()
        if not settings.in_process:
            # The next engine is forked as fast as it wakes or comes back.
            self._leases.enter_context(parent_of_engines().kept())
        self.trouble = ""
        """Why there is no engine, while there is none."""
        self.deaths: Counter[Cause] = Counter()
        self.stats: dict[str, float] = {}
        """The engine's last numbers."""
        self._attach(engine)
        self._watch = self._loop.call_later(_WATCH_S, self._check)

    @property
    def is_ready(self) -> bool:
        """Whether the engine has been heard lately."""
        return self._engine is not None and time.monotonic() - self._heard_s < SILENT_S

    def submit(self, message: Submit) -> None:
        """Raises InstanceDied while there is no engine, QueueFull while it does not take in what
        was sent, InvalidRequest for what it never would."""
        self._check_engine()
        parts = pack_in_parts(message)
        self._check_size(sum(map(len, parts)))
        self._send(*parts)

    def _check_size(self, size: int) -> None:
        if size > MAX_FRAME_BYTES:
            raise InvalidRequest(
                f"messages: {size} bytes with all images; at most {MAX_FRAME_BYTES} may be sent to "
                "an engine together; send fewer or smaller images"
            )
        if self._unsent and self._num_unsent + size > MAX_UNSENT_BYTES:
            raise QueueFull(
                f"the engine of model '{self._name}' has not taken in what was sent, "
                f"{self._num_unsent} bytes; {size} more would exceed {MAX_UNSENT_BYTES}; try "
                "again later, or with fewer images or choices"
            )

    def abort(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        if self._engine is not None:
            self._send(pack(Abort([request_id])))

    def load_adapter(self, key: str, name: str, folder: str) -> None:
        """Answered by `on_adapter`. Raises InstanceDied while there is no engine."""
        self._check_engine()
        self._send(pack(LoadAdapter(key, name, folder)))

    def unload_adapter(self, key: str) -> None:
        """Nobody will ask for it any more."""
        if self._engine is not None:
            self._send(pack(UnloadAdapter(key)))

    def reset_prefix_cache(self, *, is_anew: bool) -> None:
        """Before whatever is submitted from now on. An engine that is being started has none."""
        if self._engine is not None:
            self._send(pack(ResetPrefixCache(is_anew)))

    async def close(self) -> None:
        """Ends the engine."""
        self._is_closed = True
        self._watch.cancel()
        await self.part()
        self._leases.close()

    async def part(self) -> None:
        """Ends the engine, if there is one; none is started before `take`."""
        if self._restart is not None:
            self._restart.cancel()
        engine = self._detach()
        self.stats = {}
        if engine is not None:
            await asyncio.to_thread(engine.kill)

    def take(self, engine: StartedEngine) -> None:
        """Another one, which has to be told all again."""
        self._attach(engine)
        self._listener.on_back()

    # -- the socket ----------------------------------------------------------------------------

    def _attach(self, engine: StartedEngine) -> None:
        self._engine = engine
        self._reader = FrameReader()
        self._unsent: deque[memoryview] = deque()
        self._num_unsent = 0
        self._heard_s = self._checked_s = time.monotonic()
        self._silent_s = self._step_s = 0.0
        self.trouble = ""
        engine.socket.setblocking(False)
        self._loop.add_reader(engine.socket.fileno(), self._on_readable)
        for message in engine.early:
            self._on_message(message)

    def _detach(self) -> StartedEngine | None:
        engine, self._engine = self._engine, None
        if engine is not None:
            self._loop.remove_reader(engine.socket.fileno())
            self._loop.remove_writer(engine.socket.fileno())
        return engine

    def _check_engine(self) -> None:
        if self._engine is None:
            raise InstanceDied(
                f"the engine of model '{self._name}' is being restarted",
                retry_after_s=self._delay_s,
            )

    def _send(self, *parts: bytes) -> None:
        """A frame, which may be in parts."""
        assert self._engine is not None
        if not self._unsent:
            self._loop.add_writer(self._engine.socket.fileno(), self._on_writable)
        self._unsent += map(memoryview, parts)
        self._num_unsent += sum(map(len, parts))
        self._on_writable()

    def _on_writable(self) -> None:
        assert self._engine is not None
        try:
            sent = self._engine.socket.sendmsg(list(islice(self._unsent, _PARTS_AT_ONCE)))
        except BlockingIOError:
            return
        except OSError:
            # The reader sees the end too, and tells the rest.
            sent = self._num_unsent
        self._num_unsent -= sent
        while self._unsent and sent >= len(self._unsent[0]):
            sent -= len(self._unsent.popleft())
        if self._unsent:
            self._unsent[0] = self._unsent[0][sent:]
        else:
            self._loop.remove_writer(self._engine.socket.fileno())

    def _on_readable(self) -> None:
        assert self._engine is not None
        try:
            data = self._engine.socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._on_death()
            return
        self._heard_s = time.monotonic()
        self._silent_s = 0.0
        try:
            for message in self._reader.feed(data):
                self._on_message(message)
        except ValueError:
            log.exception("the engine of '%s' sent nonsense", self._name)
            self._on_death()

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Outputs):
            self.stats = message.stats
            self._step_s = 0.0
            self._delay_s = _FIRST_DELAY_S
            self._listener.on_outputs(message)
        elif isinstance(message, Heartbeat):
            self.stats = message.stats
            self._step_s = message.step_s
        elif isinstance(message, AdapterRead):
            self._listener.on_adapter(message)
        elif isinstance(message, Logged):
            log_of_engine(self._name, message)

    # -- death and return ----------------------------------------------------------------------

    def _check(self) -> None:
        # Counted in looks of ours: where both processes stood still, nobody was silent.
        now_s = time.monotonic()
        self._silent_s += min(now_s - self._checked_s, 2 * _WATCH_S)
        self._checked_s = now_s
        settings = self._settings
        if self._engine is not None:
            self._engine.look()
        if self._silent_s > (limit_s := settings.heartbeat_timeout_s):
            text = f"no sign of life for {limit_s:g} s, model parameter heartbeat_timeout_s"
            self._on_death(Ending(Cause.SILENT, text))
        elif self._step_s > (limit_s := settings.step_timeout_s):
            text = f"a step took more than {limit_s:g} s, model parameter step_timeout_s"
            self._on_death(Ending(Cause.TIMEOUT, text))
        self._watch = self._loop.call_later(_WATCH_S, self._check)

    def _on_death(self, ending: Ending | None = None) -> None:
        """`ending`: why it is given up, where it has not ended by itself."""
        engine = self._detach()
        if engine is None or self._is_closed:
            return
        self.trouble = f"the engine of model '{self._name}' died; it is being restarted"
        self._restart = self._loop.create_task(self._replace(engine, ending))
        self._listener.on_lost(InstanceDied(self.trouble))

    async def _replace(self, dead: StartedEngine, ending: Ending | None) -> None:
        # In one turn of a thread: it is killed although nobody waits for another one any more.
        await asyncio.to_thread(_end, dead, is_ending=ending is None)
        ending = ending or dead.ending()
        self.deaths[ending.cause] += 1
        self.trouble = (
            f"the engine of model '{self._name}' died ({ending.text}); it is being restarted"
        )
        log.error("%s", self.trouble)
        while not self._is_closed:
            await asyncio.sleep(self._delay_s)
            self._delay_s = min(2 * self._delay_s, _LONGEST_DELAY_S)
            starting = self._loop.run_in_executor(None, start_engine, self._name, self._settings)
            try:
                engine = await asyncio.shield(starting)
            except LoadFailed as error:
                self.trouble = (
                    f"the engine of model '{self._name}' did not start: {error.message}; the next "
                    f"start is in {self._delay_s:g} s"
                )
                log.error("%s", self.trouble)  # noqa: TRY400  # its text says all
            except asyncio.CancelledError:
                starting.add_done_callback(_kill_late)
                raise
            else:
                self.take(engine)
                log.info("the engine of '%s' is back", self._name)
                return


def _end(engine: StartedEngine, *, is_ending: bool) -> None:
    """`is_ending`: its last word was that it hung up, and the process is about to end."""
    deadline_s = time.monotonic() + _END_S
    while is_ending and engine.is_running() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    engine.kill()


def _kill_late(starting: "asyncio.Future[StartedEngine]") -> None:
    """An engine that was ready only after the server had given it up."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().kill()
