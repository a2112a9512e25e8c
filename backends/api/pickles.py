"""Whether a model's pickles are loaded: they run code, so the operator names each such model."""

from enum import Enum
from pathlib import Path

from trivet.backends.api.errors import LoadFailed


class Pickles(Enum):
    """What becomes of the pickles among a model's files."""

    REFUSED = "refused"
    APART = "apart"
    """The operator has named the model: a process of its own may load them, without the network
    where the kernel allows that."""
    HERE = "here"
    """This is that process."""


def refuse_pickle(model_name: str, path: Path, *, what: str, fix: str) -> LoadFailed:
    """The error for one that is not to be loaded. `what`: the file is; `fix`: how to do without."""
    return LoadFailed(
        f"model '{model_name}': '{path.name}' is {what}, and pickles run code when they are "
        f"loaded: {fix}. Or start the server with --allow-pickle {model_name}, which loads it in a "
        "process of its own"
    )
