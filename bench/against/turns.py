"""Programs that measure side by side, of which one runs at a time and the others are stopped.

Turns are short: what else the machine does meets all of them alike.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures
from bench.processes import environment_of

TURN_S = 0.05


@dataclass(frozen=True, slots=True)
class Program:
    """A module of the bench, over the `trivet` of a checkout; it prints figures."""

    arguments: Sequence[str]
    root: Path
    text: str = ""
    """For its standard input."""

    def start(self, stack: ExitStack) -> "subprocess.Popen[str]":
        """Runs it; its end is the stack's."""
        given, taken = os.pipe()  # it holds more than any of these texts
        os.write(taken, self.text.encode())
        os.close(taken)
        stack.callback(os.close, given)
        process = subprocess.Popen(
            [sys.executable, "-m", *self.arguments],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
            env=environment_of(self.root),
        )
        stack.enter_context(process)
        stack.callback(process.kill)
        return process


def run_in_turns(programs: Mapping[str, Program]) -> dict[str, Figures]:
    """The figures of all, which overlap in time. Raises RuntimeError where one fails."""
    with ExitStack() as stack:
        processes = {name: program.start(stack) for name, program in programs.items()}
        for process in processes.values():
            process.send_signal(signal.SIGSTOP)
        _take_turns(list(processes.values()))
        return {name: _figures(name, process) for name, process in processes.items()}


def _take_turns(running: "list[subprocess.Popen[str]]") -> None:
    while running:
        process = running.pop(0)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(TURN_S if running else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGSTOP)
            running.append(process)


def _figures(name: str, process: "subprocess.Popen[str]") -> Figures:
    output, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"measuring {name} failed:\n{errors}")
    figures: Figures = json.loads(output)
    return figures
