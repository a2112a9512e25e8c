"""Pictures of lines of text: those of the example's golden set, and their labels."""

import runpy
from collections.abc import Callable

import numpy as np
from example_site import REPOSITORY

LABELS = (REPOSITORY / "text_direction/labels.txt").read_text().split()
_LINES = runpy.run_path(str(REPOSITORY / "lines.py"))
line: Callable[[str], np.ndarray] = _LINES["line"]
"""The word in black on white, FP32 [3, 48, 192], values from -1 to 1."""
turned: Callable[[np.ndarray], np.ndarray] = _LINES["turned"]
"""By half a turn."""
