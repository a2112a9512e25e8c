"""What a process of ours is started with: an interpreter's program that runs a module's `main`."""

from pathlib import Path

import trivet

_ROOT = str(Path(trivet.__file__).parents[1])


def program(module: str) -> str:
    """For an interpreter started with -P: without that the working directory were on the path, and
    a file named json.py in it would be imported. Appended last, the package's folder can hide
    nothing either."""
    return f"import sys; sys.path.append({_ROOT!r}); from {module} import main; main()"
