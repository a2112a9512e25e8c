"""A plugin of pytest for runs under sanitizers: the native code is that of $SANITIZED_PARTS."""

import os
from pathlib import Path

from trivet.backends.llm.native import library
from trivet.server.shared_memory.native import shm_guard

_FOLDER = Path(os.environ["SANITIZED_PARTS"])
library.LIBRARY = _FOLDER / library.LIBRARY.name
shm_guard.LIBRARY = _FOLDER / shm_guard.LIBRARY.name
