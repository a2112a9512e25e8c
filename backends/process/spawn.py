"""One child process as its parent holds it: sockets, exit, output, and the order of its end."""

import logging
import math
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from trivet.backends.api import Cause, LoadFailed, ServingError
from trivet.backends.api.meters import Meters
from trivet.backends.process.channel import Channel, ChannelClosed, Frame, Header
from trivet.backends.process.ending import Ending, MemoryKills
from trivet.backends.process.forking import CannotFork, StartedProcess, fork_server_of
from trivet.backends.process.link import Link, Message
from trivet.backends.process.metering import answer_meter
from trivet.backends.process.order import Order
from trivet.backends.process.output import OutputLines
from trivet.backends.process.regions import RegionReader, RegionWriter
from trivet.backends.process.start import command, is_confined, num_threads, variables
from trivet.backends.process.task import Task
from trivet.backends.process.wakeup import Wakeup
from trivet.backends.process.wire import decode_error
from trivet.backends.registry import about_of

log = logging.getLogger(__name__)

_KILL_AFTER_S = 1.0
"""Between asking a process to terminate and killing it."""
_EXIT_AFTER_EOF_S = 5.0
"""How long a process that has closed its sockets may take to exit."""
POLL_S = 0.02
"""How soon a cancellation is passed on, and memory that clients have finished with."""


class ChildProcess:
    """A started instance process.

    Made, read (`receive`) and released by one thread; that thread must outlive the process, for
    the kernel kills a process when the thread that started it ends (a forked one: when the main
    thread does). `calls` belongs to the thread that executes, under `in_use`. `finish`, `condemn`,
    `wake` and `exited` are for any thread.
    """

    def __init__(self, task: Task, meters: Meters | None = None) -> None:
        """`meters`: where the model's metrics are kept while the process lives."""
        self.name = task.name
        self._meters = meters
        self.exited = threading.Event()
        self.in_use = threading.Lock()
        """Held while a thread other than the reader's uses a link: none is closed under it."""
        self.ending = Ending(Cause.EXIT, "connection lost")
        """How it ended, once it has: "signal 9", "exit code 1"."""
        self._condemned: Ending | None = None
        self._memory_kills = MemoryKills()
        self._inbox: deque[Message] = deque()
        self._steps: list[tuple[float, signal.Signals]] = []
        """What to send it when, if it has not exited by then."""
        with ExitStack() as resources:
            self._open(task, resources)
            self._resources = resources.pop_all()

    def _open(self, task: Task, resources: ExitStack) -> None:
        writer, reader = RegionWriter(), RegionReader()
        calls, child_calls = socket.socketpair()
        events, child_events = socket.socketpair()
        read_fd, write_fd = os.pipe()
        self.calls = Link(Channel(calls), writer, reader)
        self.events = Link(Channel(events), writer, reader)
        self._output = OutputLines(read_fd, task.name, task.config.name)
        self._wakeup = Wakeup()
        for closable in (self._wakeup, self.calls.channel, self.events.channel, self._output):
            resources.callback(closable.close)
        with child_calls, child_events, os.fdopen(write_fd, "wb") as pipe:
            self._process = _start(task, child_calls.fileno(), child_events.fileno(), pipe.fileno())
        self.pid = self._output.pid = self._process.pid
        resources.callback(os.close, self._open_pid_fd())
        self._poll = select.poll()
        for fd in (self._wakeup.fd, self._pid_fd, self._output.fd, self.events.channel.fileno()):
            self._poll.register(fd, select.POLLIN)
        self.calls.channel.set_read_timeout(POLL_S)
        # If it is dead already, `receive` will see that.
        with suppress(ChannelClosed):
            self.calls.send(task.to_header())

    def _open_pid_fd(self) -> int:
        try:
            self._pid_fd = os.pidfd_open(self.pid)
        except OSError:
            self._signal(signal.SIGKILL)
            self._process.wait()
            raise
        return self._pid_fd

    def receive(self, timeout_s: float | None) -> Message | None:
        """The next event, or None: after the time-out, a `wake`, or the exit of the process."""
        if not self._inbox and not self.exited.is_set():
            self._wait(timeout_s)
        return self._inbox.popleft() if self._inbox else None

    def await_task(self, timeout_s: float, closing: threading.Event) -> Header:
        """The answer to the task. Raises LoadFailed, or what the child raised.

        Set `closing` and `wake` this to have it give up.
        """
        deadline = time.monotonic() + timeout_s
        while not self.exited.is_set():
            if closing.is_set():
                raise LoadFailed(f"{self.name} was closed while it was loading")
            message = self.receive(max(0.0, deadline - time.monotonic()))
            if message is not None and message.header["op"] == "failed":
                raise decode_error(message.header)
            if message is not None:
                return message.header
            if time.monotonic() > deadline:
                raise LoadFailed(
                    f"{self.name} did not load within {timeout_s:g} s "
                    "(model parameter load_timeout_s)"
                )
        raise LoadFailed(
            f"the process of {self.name} ended while loading ({self.ending.text}); "
            "its output is in the server log"
        )

    def finish(self, limit_s: float) -> None:
        """Lets the process exit by itself for so long, then has it terminated, then killed."""
        self._plan_end(limit_s)
        self.wake()

    def condemn(self, ending: Ending) -> None:
        """Kills it at once, for a reason that it is given as its end."""
        if self._condemned is None:
            log.error("%s is being killed: %s", self.name, ending.text)
            self._condemned = ending
            self._steps = [(time.monotonic(), signal.SIGKILL)]
            self.wake()

    def look_for_memory_kills(self) -> None:
        """To be called often by the reader: how the process ended cannot be known otherwise."""
        self._memory_kills.look()

    def wake(self) -> None:
        """Makes `receive` return."""
        self._wakeup.signal()

    def release(self) -> None:
        """Waits for the end that `finish` has ordered and frees everything."""
        if not self._steps:
            self._plan_end(0)
        while not self.exited.is_set():
            self._wait(None)
        if self._meters is not None:
            self._meters.release()
        # Whoever waits for a reply has been hung up on and lets go at once.
        with self.in_use:
            self._resources.close()

    def _wait(self, timeout_s: float | None) -> None:
        for fd, _ in self._poll.poll(_milliseconds(self._until_next_step(timeout_s))):
            if fd == self._wakeup.fd:
                self._wakeup.clear()
            elif fd == self._output.fd:
                if not self._output.forward():
                    self._poll.unregister(fd)
            elif fd == self._pid_fd:
                self._bury()
            else:
                self._read_events()
        if not self.exited.is_set():
            self._take_steps()

    def _read_events(self) -> None:
        """Takes in what has arrived; at the end of the stream the process should soon be gone."""
        try:
            frames = self.events.channel.receive_available()
        except ChannelClosed:
            self._poll.unregister(self.events.channel.fileno())
            self.calls.channel.hang_up()
            if not self._steps:
                self._plan_end(_EXIT_AFTER_EOF_S)
            return
        self._take(frames)

    def _take(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.header["op"] == "log":
                log.log(frame.header["level"], "%s: %s", self.name, frame.header["text"])
            elif frame.header["op"] == "meter" and self._meters is not None:
                self._answer_meter(frame.header, self._meters)
            else:
                self._inbox.append(self.events.open(frame))

    def _answer_meter(self, header: Header, meters: Meters) -> None:
        answer = answer_meter(header, meters)
        if answer is not None:
            with suppress(ChannelClosed):
                self.events.channel.send(answer)

    def _bury(self) -> None:
        """Reads what the dead process has left, ends its own children and reaps it."""
        with suppress(ChannelClosed):
            while frames := self.events.channel.receive_available():
                self._take(frames)
        # Before it is reaped, while its number cannot be another group's.
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        self.ending = self._condemned or Ending.of(
            code, is_out_of_memory=self._memory_kills.are_fresh()
        )
        # A child of it may hold its ends of the sockets open.
        self.calls.channel.hang_up()
        self.exited.set()

    def _plan_end(self, limit_s: float) -> None:
        terminate_at = time.monotonic() + limit_s
        kill_at = terminate_at + _KILL_AFTER_S
        self._steps = [(terminate_at, signal.SIGTERM), (kill_at, signal.SIGKILL)]

    def _until_next_step(self, timeout_s: float | None) -> float | None:
        if not self._steps:
            return timeout_s
        until_step = max(0.0, self._steps[0][0] - time.monotonic())
        return until_step if timeout_s is None else min(timeout_s, until_step)

    def _take_steps(self) -> None:
        while self._steps and time.monotonic() >= self._steps[0][0]:
            number = self._steps[0][1]
            self._steps = self._steps[1:]
            if number is signal.SIGKILL and self._condemned is None:
                log.warning("%s did not stop when asked to; killing it", self.name)
            self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        # It leads a process group of its own: what it has started goes with it.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _milliseconds(timeout_s: float | None) -> int | None:
    return None if timeout_s is None else math.ceil(timeout_s * 1000)


def _start(task: Task, calls_fd: int, events_fd: int, output_fd: int) -> StartedProcess:
    """Forked, where that is as good as started."""
    if _is_forked(task):
        order = Order.of_caller(
            variables(task, os.environ), num_threads(task), is_confined=is_confined(task)
        )
        # Where the system is short of something, starting one says of what.
        with suppress(CannotFork, OSError):
            return fork_server_of(task.backend).fork(order, (calls_fd, events_fd, output_fd))
    return _spawn(task, calls_fd, events_fd, output_fd)


def _is_forked(task: Task) -> bool:
    if task.files.environment is not None:
        return False
    try:
        return about_of(task.backend).shared_imports is not None
    except ServingError:
        # The process says what is wrong.
        return False


def _spawn(task: Task, calls_fd: int, events_fd: int, output_fd: int) -> subprocess.Popen[bytes]:
    """Raises LoadFailed where the interpreter of the model's environment is none."""
    arguments = [str(calls_fd), str(events_fd), str(os.getpid())]
    try:
        return subprocess.Popen(  # noqa: S603 - an interpreter and our own program
            [*command(task), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output_fd,
            stderr=output_fd,
            pass_fds=(calls_fd, events_fd),
            env=variables(task, os.environ),
            # Ctrl-C in the server's terminal is the server's to handle.
            start_new_session=True,
        )
    except OSError as error:
        if task.files.environment is None:
            raise
        raise LoadFailed(
            f"the Python of the environment of model '{task.config.name}' cannot be started: "
            f"{error.strerror}"
        ) from error
