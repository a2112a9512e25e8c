"""How an instance process is started: interpreter, program and environment variables. Pure."""

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from trivet.backends.api import Environment, Pickles
from trivet.backends.process.order import instance_variables
from trivet.backends.process.program import program
from trivet.backends.process.task import Task

SHARED = ("numpy", "ml_dtypes", "orjson")
"""What a process needs that is compiled for one version of Python: the environment's own, or the
server's."""

_PROGRAM = program("trivet.backends.process.child")
_CONFINED_PROGRAM = program("trivet.backends.confinement")
"""For files that may run code of whoever wrote them."""
_GUEST = str(Path(__file__).with_name("guest.py"))
"""Never imported: it runs where we are guests."""
_PRIVATE = ("google", "google.protobuf", "google._upb")
_SERVERS_OWN = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "CONDA_PREFIX")


def command(task: Task) -> list[str]:
    """Without the arguments of the program."""
    environment = task.files.environment
    if environment is None:
        return [sys.executable, "-P", "-c", _CONFINED_PROGRAM if is_confined(task) else _PROGRAM]
    given = {
        "ours": _folders(("trivet",)),
        "private": _folders(_PRIVATE),
        "shared": _folders(SHARED),
        "is_confined": is_confined(task),
    }
    # As a file, since its folder is nobody's to import from; and without the user's packages.
    return [str(environment.python), "-P", "-s", _GUEST, json.dumps(given)]


def variables(task: Task, given: Mapping[str, str]) -> dict[str, str]:
    """The server's, with what numeric libraries read when they are imported, and without what leads
    to the server's packages where the model has others."""
    found = instance_variables(given, num_threads(task))
    if task.placement is not None and task.placement.device_uuid:
        found["CUDA_VISIBLE_DEVICES"] = task.placement.device_uuid
    environment = task.files.environment
    return found if environment is None else _activated(found, environment)


def num_threads(task: Task) -> int:
    """Of libraries that compute."""
    return max(1, task.placement.cpu_threads) if task.placement else 1


def is_confined(task: Task) -> bool:
    """Whether the process is to leave the network."""
    return task.files.pickles is not Pickles.REFUSED


def plain(given: Mapping[str, str]) -> dict[str, str]:
    """The server's without what leads to its packages."""
    return {name: value for name, value in given.items() if name not in _SERVERS_OWN}


def _activated(given: dict[str, str], environment: Environment) -> dict[str, str]:
    """What its `activate` would change, for programs that the model starts."""
    found = plain(given)
    found["PATH"] = _first(environment.folder / "bin", given.get("PATH", ""))
    found["PYTHONNOUSERSITE"] = "1"
    if environment.has_libraries:
        found["CONDA_PREFIX"] = str(environment.folder)
        found["LD_LIBRARY_PATH"] = _first(
            environment.folder / "lib", given.get("LD_LIBRARY_PATH", "")
        )
    else:
        found["VIRTUAL_ENV"] = str(environment.folder)
    return found


def _first(folder: Path, rest: str) -> str:
    return f"{folder}:{rest}" if rest else str(folder)


def _folders(names: tuple[str, ...]) -> dict[str, str]:
    """By package: the folder in which it is installed here."""
    return {name: folder for name in names if (folder := _folder(name))}


def _folder(name: str) -> str:
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return str(Path(places[0]).parent) if places else ""
