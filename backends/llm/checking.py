"""What is refused of a language model's files before any weight is read."""

from pathlib import Path

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import NotComputed
from trivet.backends.llm.families.registry import is_known
from trivet.backends.llm.foreign.classes import find_class
from trivet.backends.llm.weights.documents import read_config, read_json


def check_model(path: Path) -> None:
    """Whether a family, or a class of transformers, is what a Hugging Face folder or GGUF file says
    that it is: as a load looks (`loading.py`). Raises LoadFailed in its words."""
    if not path.is_dir():
        read_config(path)
        return
    values = read_json(path / "config.json")
    if not is_known(values):
        find_class(values)
        return
    try:
        read_config(path)
    except NotComputed as reason:
        try:
            find_class(values)
        except LoadFailed as error:
            raise LoadFailed(f"{reason}; nor by transformers' own classes: {error}") from error
