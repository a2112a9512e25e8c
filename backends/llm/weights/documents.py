"""What a model's files hold beside weights: their JSON, and the tokenizer. The server reads these,
too, and loads no torch for it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.config import LlmConfig
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.families.family import Family
from trivet.backends.llm.families.registry import FAMILIES, from_gguf, from_hub
from trivet.backends.llm.text.gguf_tokenizer import gguf_tokenizer
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, hub_tokenizer
from trivet.backends.llm.weights.gguf_parts import GgufModel, read_model

# Files of other quantisations or frameworks must not be taken for weights; pickles are never read.
_INDEX = "model.safetensors.index.json"
_ONLY_SHARD = "model.safetensors"
_OTHER_WEIGHTS = {
    ".bin": "a pickle, which could run code: save it as safetensors",
    ".pt": "a pickle, which could run code: save it as safetensors",
    ".pth": "a pickle, which could run code: save it as safetensors",
    ".h5": "weights of TensorFlow: save them as safetensors",
    ".msgpack": "weights of Flax: save them as safetensors",
    ".safetensors": f"whose name says nothing: call it '{_ONLY_SHARD}', or give it an '{_INDEX}'",
}
"""What may lie there instead, by ending, and what to do about it."""


def read_config(path: Path, families: Sequence[Family] = FAMILIES) -> LlmConfig:
    """The config alone; that the files with the weights are there is looked at, too. Raises
    LoadFailed."""
    if path.is_dir():
        config = from_hub(read_json(path / "config.json"), families)
        shards(path)
        return config
    model = read_model(path)
    return from_gguf(described(path, model), model.tensors, families)


def load_tokenizer_files(path: Path) -> TokenizerFiles:
    """The tokenizer alone. Raises LoadFailed."""
    if path.is_dir():
        return hub_tokenizer(path)
    return gguf_tokenizer(described(path, read_model(path)))


def described(path: Path, model: GgufModel) -> Described:
    """A GGUF file's metadata."""
    return Described(model.metadata, f"the metadata of '{path.name}'")


def read_json(path: Path) -> dict[str, Any]:
    """A file's object. Raises LoadFailed."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = reason_of(error) if isinstance(error, OSError) else type(error).__name__
        raise LoadFailed(f"'{path.name}' cannot be read as JSON: {text}") from error
    if not isinstance(document, dict):
        raise LoadFailed(f"'{path.name}' must be a JSON object")
    return document


def reason_of(error: Exception) -> str:
    """An error's text. A file's own says where the repository lies, too, which clients need not
    know."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)


def shards(folder: Path) -> list[str]:
    """The names of a folder's files with weights. Raises LoadFailed."""
    index = folder / _INDEX
    if not index.exists():
        _refuse_other_weights(folder)
        return [_ONLY_SHARD]
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise LoadFailed(f"'{_INDEX}' must have a 'weight_map' from weights to files")
    for name in places.values():
        if Path(name).name != name:
            raise LoadFailed(f"'{_INDEX}' names '{name}', which is no file of the folder")
    return sorted(set(places.values()))


def _refuse_other_weights(folder: Path) -> None:
    """Raises LoadFailed that names what lies there instead of weights that can be read."""
    if (folder / _ONLY_SHARD).exists():
        return
    for ending, advice in reversed(_OTHER_WEIGHTS.items()):
        found = sorted(path.name for path in folder.glob(f"*{ending}"))
        if found:
            raise LoadFailed(
                f"'{_ONLY_SHARD}' cannot be read: there is none, but '{found[0]}', {advice}"
            )
