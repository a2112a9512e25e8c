"""Says what kind of PyTorch model a file is, and refuses those that would run code when loaded.

torch.load and torch.export.load fall back to full pickle for parts of an archive, and pickle runs
what the file says. So archives are looked into before PyTorch opens them.
"""

import io
import json
import zipfile
from enum import Enum, auto
from pathlib import Path

import torch

from trivet.backends.api import LoadFailed, refuse_pickle
from trivet.backends.api.content import describe_content


class Kind(Enum):
    """The kinds of PyTorch models."""

    SCRIPT = auto()
    """TorchScript."""
    EXPORTED = auto()
    """torch.export."""
    COMPILED = auto()
    """AOTInductor: native code, as trusted as any shared library in the model's folder."""
    STATE_DICT = auto()
    """Of torch.save: weights without a program, or pickled objects."""
    PICKLE = auto()
    """The same of PyTorch before 1.6, or any pickle."""


FIX = (
    "save the program with torch.export.save (model.pt2) or torch.jit.save (model.pt), or put its "
    "class into a model.py beside weights saved from its state_dict()"
)


def kind_of(path: Path) -> Kind:
    """Raises LoadFailed when the file is none of them."""
    if path.suffix == ".safetensors":
        return Kind.STATE_DICT
    if not zipfile.is_zipfile(path):
        if is_pickle(path):
            return Kind.PICKLE
        raise LoadFailed(
            f"'{path.name}' is no PyTorch archive; it is {describe_content(path)}: {FIX}"
        )
    names = _inner_names(path)
    if any(name.startswith("data/aotinductor/") for name in names):
        return Kind.COMPILED
    if any(name.startswith("models/") for name in names):
        return Kind.EXPORTED
    if "constants.pkl" in names:
        return Kind.SCRIPT
    if "data.pkl" in names:
        return Kind.STATE_DICT
    raise LoadFailed(f"'{path.name}' is a zip archive without a PyTorch model in it: {FIX}")


def refuse_program_missing(model_name: str, path: Path) -> LoadFailed:
    """The error for weights or pickles where a program is needed."""
    of_torch = "of torch.save: weights or pickled objects, no program"
    what = "a pickle" if is_pickle(path) else of_torch
    return refuse_pickle(model_name, path, what=what, fix=FIX)


def is_pickle(path: Path) -> bool:
    """By its first bytes."""
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x80 and head[1] <= 5


def check_exported(path: Path) -> None:
    """Raises LoadFailed for a torch.export archive with pickled Python objects in it."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            inner = name.partition("/")[2]
            if inner.endswith(("_weights_config.json", "_constants_config.json")):
                _check_payload(path, archive.read(name))
            elif inner.endswith(".pt"):
                _check_tensors_only(path, inner, archive.read(name))


def _check_payload(path: Path, text: bytes) -> None:
    try:
        entries = json.loads(text)["config"]
        unsafe = [
            name
            for name, entry in entries.items()
            if entry["use_pickle"] or entry["path_name"].startswith(("custom_obj", "opaque_obj"))
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise LoadFailed(f"'{path.name}': the table of its weights is unreadable") from error
    if unsafe:
        raise LoadFailed(
            f"'{path.name}' holds {unsafe} as pickled Python objects, which are not loaded, "
            "because they run code: export the model with plain tensors"
        )


def _check_tensors_only(path: Path, inner: str, content: bytes) -> None:
    """PyTorch would fall back to full pickle for what its restricted reader refuses."""
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    # Whatever the restricted reader raises, the file is refused.
    except Exception as error:
        raise LoadFailed(
            f"'{path.name}' holds pickled Python objects in '{inner}', which are not loaded, "
            "because they run code: export the model with plain tensors as example inputs"
        ) from error


def _inner_names(path: Path) -> set[str]:
    """Member names without the archive's own top folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.partition("/")[2] for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise LoadFailed(f"'{path.name}' is a damaged zip archive: {error}") from error
