"""Which evaluations are to be run, one after the other, and what comes of them. Owned by the event
loop."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from trivet.backends.api import ServingError
from trivet.server.core import Core
from trivet.server.gating.private_door import PrivateDoor, open_private_door
from trivet.server.models.gate import Gatekeeper, Wanted
from trivet.server.repository.layout import EVALUATION_FILE, ModelFolder

log = logging.getLogger(__name__)
_NICE = 10
"""Low, yet a share: with 19 a machine whose cores are taken leaves an evaluation next to none."""
_PASSED, _NOT_PASSED = 0, 1
"""Exit codes that come with a report."""
_MAX_TOLD = 600
Load = Callable[[ModelFolder], Awaitable[None]]


class Evaluations:
    """Runs what the gatekeeper wants."""

    def __init__(self, gatekeeper: Gatekeeper, history: Path, harness: str) -> None:
        """`history`: the folder for reports; `harness`: the program of lm-eval."""
        self._harness = harness
        self._gatekeeper = gatekeeper
        self._history = history
        self._waiting: dict[tuple[str, str], Wanted] = {}
        """By key and digest."""
        self._has_work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        gatekeeper.on_wanted = self._want

    def start(self, core: Core, load: Load) -> None:
        """Begins, once the models of the start are loaded, among which may be judges. `core`: whom
        the evaluations ask; `load`: has versions shared out anew."""
        self._task = asyncio.get_running_loop().create_task(self._run(core, load))
        self._task.add_done_callback(_tell_of)

    async def close(self) -> None:
        """Breaks off what runs; it is run anew by the next start."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _want(self, wanted: Wanted) -> None:
        self._waiting.setdefault((wanted.key, wanted.digest), wanted)
        self._has_work.set()

    async def _run(self, core: Core, load: Load) -> None:
        while True:
            await self._has_work.wait()
            place = next(iter(self._waiting))
            wanted = self._waiting[place]
            if self._gatekeeper.is_wanted(wanted):
                await self._evaluate(wanted, core)
                await self._share_out_anew(wanted, load)
            del self._waiting[place]
            if not self._waiting:
                self._has_work.clear()

    async def _evaluate(self, wanted: Wanted, core: Core) -> None:
        log.info("model '%s' version %d: its evaluation begins", wanted.key, wanted.version)
        try:
            async with open_private_door(core) as door:
                code, said = await self._in_process(wanted, door)
        except OSError as error:
            self._gatekeeper.broke_off(wanted, f"its evaluation cannot be run: {error}")
        else:
            if code not in (_PASSED, _NOT_PASSED):
                why = said[-_MAX_TOLD:].strip().removeprefix("Error: ")
                self._gatekeeper.broke_off(
                    wanted, f"its evaluation broke off: {why or f'exit code {code}'}"
                )
            verdict = "has passed" if code == _PASSED else "has not passed"
            log.info("model '%s' version %d %s", wanted.key, wanted.version, verdict)

    async def _in_process(self, wanted: Wanted, door: PrivateDoor) -> tuple[int, str]:
        """Exit code, and what was said of faults. Raises OSError."""
        command = [sys.executable, "-m", "trivet", "eval", "run", wanted.key]
        command += ["--version", str(wanted.version), "--digest", wanted.digest]
        command += ["--config", str(wanted.demand.folder / EVALUATION_FILE), "--url", door.url]
        command += ["--history", str(self._history), "--lm-eval", self._harness]
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, "TRIVET_API_KEY": door.secret},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
            _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None, "it was waited for"
        return process.returncode, said.decode(errors="replace")

    async def _share_out_anew(self, wanted: Wanted, load: Load) -> None:
        plan = self._gatekeeper.plan_of(wanted.key)
        if plan is None or not self._gatekeeper.is_wanted(wanted):
            return
        with suppress(ServingError):  # The lifecycle has logged it.
            await load(plan.folder)
        if self._gatekeeper.lacks_report(wanted):
            self._gatekeeper.broke_off(wanted, "its report is not in --state-dir, where it was put")


def _tell_of(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("no more evaluations are run", exc_info=error)
