"""What `trivet doctor` looks at: each finding is good, could be better, or is wrong."""

import importlib
import importlib.util
import os
import re
import shutil
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import requires
from pathlib import Path

import psutil

from trivet.backends.api import About
from trivet.backends.device.nvml import Gpus
from trivet.backends.registry import abouts
from trivet.server.shared_memory.native.shm_guard import LIBRARY as GUARD

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_SHM = "/dev/shm"  # noqa: S108 - where the kernel has it
_LEAST_PYTHON = (3, 11)
_LEAST_FILES = 4096 + 1024
"""As many connections as HTTP takes by default, and some files."""
_LEAST_SHARED_BYTES = _GIB // 2
_PORTS = {"HTTP": 8000, "gRPC": 8001, "metrics": 8002}


class State(Enum):
    """The value is the colour."""

    GOOD = "green"
    BETTER = "yellow"
    WRONG = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `mend`: the command or the step that makes it better."""

    about: str
    state: State
    text: str
    mend: str = ""


def examine(repositories: tuple[Path, ...], ports: dict[str, int] | None = None) -> list[Finding]:
    """Everything, in the order in which it is read."""
    return [
        _python(),
        *_compiled(),
        *_backends(),
        _gpus(),
        _memory(),
        _shared_memory(),
        _files(),
        *_ports(ports or _PORTS),
        *(finding for each in repositories for finding in _repository(each)),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _LEAST_PYTHON:
        return Finding("Python", State.WRONG, version, "trivet needs Python 3.11 or newer")
    return Finding("Python", State.GOOD, f"{version} at {sys.executable}")


def _compiled() -> Iterator[Finding]:
    """Of what is compiled at installation."""
    unused = {
        f"compiled part of {each.word}": _attribute(each.compiled)()
        for each in abouts().values()
        if each.compiled and _is_there(each)
    }
    unused["guarded mapping"] = "" if GUARD.exists() else "clients cannot register shared memory"
    for about, why in unused.items():
        if why:
            yield Finding(about, State.BETTER, f"not used: {why}", _build_again())
        else:
            yield Finding(about, State.GOOD, "used")


def _build_again() -> str:
    again = "pip install --force-reinstall --no-deps trivet"
    if any(map(shutil.which, ("cc", "gcc", "clang"))):
        return again
    return f"install a C compiler (Debian: apt install gcc libc6-dev), then {again}"


def _attribute(place: str) -> Callable[[], str]:
    module, _, name = place.partition(":")
    found: Callable[[], str] = getattr(importlib.import_module(module), name)
    return found


def _is_there(about: About) -> bool:
    return all(importlib.util.find_spec(package) for package in about.packages)


def _backends() -> Iterator[Finding]:
    """A line for what is there and one for each extra that is not."""
    there, missing = [], defaultdict(list)
    for each in abouts().values():
        if not each.install:
            continue
        if _is_there(each):
            there.append(each.word)
        else:
            missing[each.install].append(each)
    yield Finding("backends", State.GOOD, ", ".join(sorted(there)) or "those without packages")
    for install, them in sorted(missing.items()):
        text = "; ".join(f"{each.word} ({_files_of(each)})" for each in them)
        mend = f"pip install '{install}'" if _is_extra(install) else f"pip install {install}"
        yield Finding("not installed", State.BETTER, text, mend)


def _files_of(about: About) -> str:
    known = (*about.suffixes, *about.names)
    return ", ".join(known[:3]) or "folders that it recognises"


def _is_extra(install: str) -> bool:
    """Whether this trivet has it: a package of another kind is named as it is."""
    extras = {
        found[1]
        for line in requires("trivet") or ()
        if (found := re.search(r"extra == .(.+?)['\"]", line))
    }
    wanted = re.fullmatch(r"trivet\[(.+)\]", install)
    return wanted is not None and set(wanted[1].split(",")) <= extras


def _gpus() -> Finding:
    gpus = Gpus.find()
    if not gpus.all:
        return Finding("GPU", State.GOOD, f"none: {gpus.why_none}")
    names = ", ".join(f"{each.number} {each.name}" for each in gpus.all)
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.version.cuda is None:
            mend = "pip install --force-reinstall torch"
            return Finding("GPU", State.WRONG, f"{names}; PyTorch is a build for CPUs", mend)
        if not torch.cuda.is_available():
            text = (
                f"{names}; PyTorch is built for CUDA {torch.version.cuda}, which this driver is not"
            )
            return Finding(
                "GPU", State.WRONG, text, "a newer driver, or a PyTorch for an older CUDA"
            )
    return Finding("GPU", State.GOOD, names)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0))
    text = f"{cores} cores, {memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    return Finding("machine", State.GOOD, text)


def _shared_memory() -> Finding:
    try:
        there = shutil.disk_usage(_SHM)
    except OSError as error:
        text = f"{_SHM}: {error.strerror}; Python models pass tensors through it"
        return Finding("shared memory", State.WRONG, text, "mount a tmpfs there")
    text = f"{_SHM} has {there.free / _MIB:,.0f} of {there.total / _MIB:,.0f} MiB free"
    if there.free < _LEAST_SHARED_BYTES:
        mend = "docker run --shm-size 1g; mount -o remount,size=1g /dev/shm"
        return Finding("shared memory", State.BETTER, f"{text}, little for tensors", mend)
    return Finding("shared memory", State.GOOD, text)


def _files() -> Finding:
    soft, hard = psutil.Process().rlimit(psutil.RLIMIT_NOFILE)
    if 0 <= soft < _LEAST_FILES:
        text = f"{soft}, fewer than the connections that are taken"
        return Finding("open files", State.BETTER, text, f"ulimit -n {min(hard, 65536)}")
    return Finding("open files", State.GOOD, "any number" if soft < 0 else str(soft))


def _ports(ports: dict[str, int]) -> Iterator[Finding]:
    for name, port in ports.items():
        try:
            with socket.socket() as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(("127.0.0.1", port))
        except OSError:
            text = f"{port} is taken by {_who_listens(port)}"
            flag = f"--{name.lower()}-port"
            yield Finding(f"port of {name}", State.BETTER, text, f"end it, or give {flag}")
        else:
            yield Finding(f"port of {name}", State.GOOD, f"{port} is free")


def _who_listens(port: int) -> str:
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.pid:
                return f"process {each.pid} ({psutil.Process(each.pid).name()})"
    except psutil.Error:
        pass
    return "a process of another user"


def _repository(folder: Path) -> Iterator[Finding]:
    from trivet.server.models.allowed import Allowed
    from trivet.server.models.validate import validate

    faults = validate((folder,), is_namespaced=False, allowed=Allowed(frozenset(), frozenset()))
    for each in faults:
        state = State.WRONG if each.severity == "error" else State.BETTER
        yield Finding(f"repository {each.place}", state, each.message, each.fix)
    if not faults:
        yield Finding(f"repository {folder}", State.GOOD, "no fault found")
