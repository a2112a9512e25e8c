"""What a model's files hold beside weights: their JSON, and the tokenizer. The server reads these,
too, and loads no torch for it."""

import json
from pathlib import Path
from typing import Any

from trivet.backends.api import LoadFailed
from trivet.backends.llm.families.described import Described
from trivet.backends.llm.text.tokenizer_files import TokenizerFiles, gguf_tokenizer, hub_tokenizer
from trivet.backends.llm.weights.gguf_parts import GgufModel, read_model


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
