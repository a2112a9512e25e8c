"""Where the model's files are, for code that is not handed `args`."""

import inspect
from pathlib import Path


def get_model_dir() -> str:
    """The folder of the file that calls this: the version folder for a `model.py`."""
    caller = inspect.stack()[1]
    return str(Path(caller.filename).resolve().parent)
