"""Tries grammars in a process that may be killed: some take minutes or all memory to compile, and
no length tells which. The process's own side is at the end."""

import contextlib
import os
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from trivet.backends.api import Grammar, InvalidRequest
from trivet.backends.llm.sampling.grammar_compiling import STACK_BYTES, start_deep_thread
from trivet.backends.llm.sampling.grammar_library import GrammarLibrary
from trivet.backends.process.program import program

CPU_S = 2.0
"""Of a processor's time, so that a busy machine refuses no more than an idle one."""
MEMORY_BYTES = 1 << 30
_WALL_S = 30.0
_PROGRAM = program("trivet.backends.llm.sampling.grammar_trial")


class GrammarTrial:
    """Owned by the thread that compiles. The process is started when it is needed first."""

    def __init__(self, tokenizer_json: str, eos_token_id: int, vocabulary_size: int) -> None:
        self._tokenizer = [tokenizer_json, eos_token_id, vocabulary_size]
        self._running: _Running | None = None
        self._end: Callable[[], object] = lambda: None

    def check(self, grammar: Grammar) -> None:
        """Raises InvalidRequest for a grammar that cannot be compiled in time and memory."""
        answer = self._ask([grammar.kind, grammar.value, grammar.field])
        if answer is None:
            self.close()
            raise InvalidRequest(
                f"{grammar.field}: the grammar is too complex: compiling it takes more than "
                f"{CPU_S:g} s or {MEMORY_BYTES >> 20} MiB; make it simpler"
            )
        if answer:
            raise InvalidRequest(answer)

    def close(self) -> None:
        """Ends the process, if there is one."""
        self._running = None
        self._end()

    def _ask(self, question: list[Any]) -> str | None:
        """The process's answer; None when it ended or took too long."""
        running = self._running or self._start()
        with contextlib.suppress(OSError):
            running.send(question)
            if select.select([running.lines], [], [], _WALL_S)[0]:
                line = running.lines.readline()
                return orjson.loads(line) if line else None
        return None

    def _start(self) -> "_Running":
        self._running = running = _Running.start()
        # It does not outlive who asks it, closed or not.
        self._end = weakref.finalize(self, running.end)
        with contextlib.suppress(OSError):
            running.send(self._tokenizer)
        return running


@dataclass(frozen=True, slots=True)
class _Running:
    """The process, and our end of the socket over which it is asked: what a library prints goes
    where the engine's own prints go."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    lines: BinaryIO

    @classmethod
    def start(cls) -> "_Running":
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            process = subprocess.Popen(  # noqa: S603  # our own interpreter and program
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A compiler that runs out of memory says so there.
                stderr=subprocess.DEVNULL,
            )
            undo.pop_all()
        return cls(process, ours, ours.makefile("rb"))

    def send(self, value: object) -> None:
        self.socket.sendall(orjson.dumps(value) + b"\n")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.lines.close()
        self.socket.close()


# -- in the process --------------------------------------------------------------------------------


def main() -> None:
    """Reads the tokenizer, then grammars, a JSON line each; answers each with what is wrong. argv:
    descriptor of the socket."""
    end = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the engine decides when to stop
    room = STACK_BYTES + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(end, lines), daemon=True).start()
    start_deep_thread(lambda: _serve(end, lines), "trials").join()


def _read(end: socket.socket, lines: "queue.SimpleQueue[bytes]") -> None:
    for line in end.makefile("rb"):
        lines.put(line)
    # The engine is gone: nobody waits for what is being compiled.
    os._exit(0)


def _serve(end: socket.socket, lines: "queue.SimpleQueue[bytes]") -> None:
    library = GrammarLibrary(*orjson.loads(lines.get()))
    while True:
        grammar = Grammar(*orjson.loads(lines.get()))
        # Its signal ends the process.
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        try:
            library.constraint(grammar)
            answer = ""
        except InvalidRequest as error:
            answer = error.message
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        end.sendall(orjson.dumps(answer) + b"\n")
