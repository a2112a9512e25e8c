"""A plugin of pytest for runs under sanitizers: the native code is that of $SANITIZED_PARTS."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_FOLDER = Path(os.environ["SANITIZED_PARTS"])
_RECORDS = _FOLDER / "_records.so"
if _RECORDS.exists():  # before anything asks for the installed one
    spec = spec_from_file_location("trivet.backends.api.native._records", _RECORDS)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])

from trivet.backends.llm.native import library  # noqa: E402
from trivet.server.shared_memory.native import shm_guard  # noqa: E402

library.LIBRARY = _FOLDER / library.LIBRARY.name
shm_guard.LIBRARY = _FOLDER / shm_guard.LIBRARY.name
