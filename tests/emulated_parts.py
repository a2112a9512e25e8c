"""A plugin of pytest: the compiled step is that of $EMULATED_PARTS, without AVX-512 and AMX."""

import os
from pathlib import Path

from trivet.backends.llm.native import library

library.LIBRARY = Path(os.environ["EMULATED_PARTS"])
_FLAGS = library.processor_flags() | library.NEEDED_FLAGS | library.TILE_FLAGS
library.processor_flags = lambda: _FLAGS  # it is cached no more
