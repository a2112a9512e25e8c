"""Programs that do something once and end, such as installing packages, within some time."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from trivet.backends.process import bond
from trivet.backends.process.output import OutputLines

_LOOK_MS = 100
"""How soon a stop is noticed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    """Its exit code, 0 where it has done what it should."""
    is_stopped: bool
    """Whether it was killed because nobody waits for it any more."""
    is_late: bool
    """Whether it was killed because its time was over."""
    lines: tuple[str, ...] = ()
    """The last ones of its output, without empty ones."""


@dataclass(frozen=True, slots=True)
class Chore:
    """A program and what it is run with. Its output goes to the log, line by line."""

    command: Sequence[str]
    """The first is a path."""
    name: str
    """What the log calls it."""
    model: str
    folder: Path
    """Where it runs."""
    variables: Mapping[str, str]

    def run(self, limit_s: float, stop: threading.Event) -> Ended:
        """Runs it to its end, at most for so long. It ends with this thread, and what it has
        started ends with it. Raises OSError where it cannot be started."""
        read_fd, write_fd = os.pipe()
        output = OutputLines(read_fd, self.name, self.model)
        try:
            with os.fdopen(write_fd, "wb") as pipe:
                process = self._start(pipe.fileno())
            output.pid = process.pid
            ended = _wait(process, output, limit_s, stop)
        finally:
            output.close()
        return replace(ended, lines=tuple(line for line in output.last if line.strip()))

    def _start(self, output_fd: int) -> subprocess.Popen[bytes]:
        start = [sys.executable, "-P", bond.__file__, str(os.getpid())]
        return subprocess.Popen(  # noqa: S603 - what the caller has put together
            [*start, *self.command],
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            cwd=self.folder,
            env=self.variables,
            start_new_session=True,
        )


def _wait(
    process: subprocess.Popen[bytes],
    output: OutputLines,
    limit_s: float,
    stop: threading.Event,
) -> Ended:
    ends_s = time.monotonic() + limit_s
    exit_fd = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(exit_fd, select.POLLIN)
    poll.register(output.fd, select.POLLIN)
    has_ended = is_stopped = is_late = False
    try:
        while not (has_ended or is_stopped or is_late):
            ready = {fd for fd, _ in poll.poll(_LOOK_MS)}
            if output.fd in ready and not output.forward():
                poll.unregister(output.fd)
            has_ended = exit_fd in ready
            is_stopped, is_late = stop.is_set(), time.monotonic() > ends_s
    finally:
        os.close(exit_fd)
        # Before it is reaped, while its number cannot be another group's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return Ended(code, is_stopped and not has_ended, is_late and not has_ended)
