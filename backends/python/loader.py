"""Imports a `model.py`, with what it expects to be able to import."""

import re
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from zlib import crc32

from trivet.backends.api import InvalidConfig
from trivet.backends.python.shim import triton_python_backend_utils
from trivet.backends.source import run_source

_CLASS = "TritonPythonModel"


def load_model_class(path: Path, model_name: str) -> type:
    """The class TritonPythonModel of the file; raises InvalidConfig when there is none.

    What the file itself raises passes through. It is a module of a package of its own, so that
    `from . import helper` finds the files beside it and two models do not meet in sys.modules.
    """
    sys.modules.setdefault("triton_python_backend_utils", triton_python_backend_utils)
    place = crc32(str(path.parent).encode())
    package = re.sub(r"\W", "_", f"trivet_model_{model_name}_{path.parent.name}_{place:08x}")
    _add_package(package, path.parent)
    module = run_source(f"{package}.{path.stem}", path)
    found = getattr(module, _CLASS, None)
    if not isinstance(found, type):
        raise InvalidConfig(f"'{path.name}' of model '{model_name}' has no class {_CLASS}")
    if not callable(getattr(found, "execute", None)):
        raise InvalidConfig(
            f"class {_CLASS} in '{path.name}' of model '{model_name}' has no method execute"
        )
    return found


def _add_package(name: str, folder: Path) -> None:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    sys.modules[name] = module_from_spec(spec)
