"""The folders of adapters, as the server reads them: names, stamps, a tokenizer of their own."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import InvalidRequest, LoadFailed
from trivet.backends.llm.text.chat import ChatTemplate
from trivet.backends.llm.text.tokenizer import Tokenizer
from trivet.backends.llm.weights.documents import load_tokenizer_files

Stamps = tuple[tuple[str, int, int, int], ...]
"""Of each file: name, size in bytes, modification time in ns, inode."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}")


@dataclass(frozen=True, slots=True)
class ReadFolder:
    """What an adapter brings besides its weights."""

    tokenizer: Tokenizer | None = None
    """None: the base's."""
    template: ChatTemplate | None = None
    eos_token_ids: tuple[int, ...] = ()

    def check(self, vocabulary_size: int) -> None:
        """Raises LoadFailed for a tokenizer that does not go with the weights."""
        if self.tokenizer is not None and self.tokenizer.num_ids > vocabulary_size:
            raise LoadFailed(
                f"its tokenizer has {self.tokenizer.num_ids} token ids, its model {vocabulary_size}"
            )


def look(root: Path) -> Mapping[str, Stamps]:
    """The adapters that lie in a folder, by name; none where it cannot be read."""
    try:
        paths = list(root.iterdir())
    except FileNotFoundError:
        return {}
    found = {}
    for path in paths:
        if NAME.fullmatch(path.name) and path.is_dir():
            with suppress(FileNotFoundError):  # gone meanwhile
                found[path.name] = _stamps(path)
    return found


def _stamps(folder: Path) -> Stamps:
    stamps = []
    for path in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):  # gone meanwhile
            if path.is_file():
                status = path.stat()
                stamps.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(stamps)


def check_name(field: str, name: str) -> None:
    """Raises InvalidRequest for what cannot be a folder's name: a path, for one."""
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{field}: {name[:128]!r} is no name of an adapter: it is a folder below the base's "
            "'adapters', and no path; names have 1 to 255 of A-Z a-z 0-9 . _ + -"
        )


def inside(root: Path | None, name: str) -> Path:
    """An adapter's folder. Raises LoadFailed for one that leads out of the model's."""
    if root is None:
        raise LoadFailed("a model without a folder has no adapters")
    path = (root / name).resolve()
    if not path.is_relative_to(root.parent.resolve()):
        raise LoadFailed(f"'{name}' points outside the folder of model '{root.parent.name}'")
    return path


def read_folder(folder: Path) -> ReadFolder:
    """Its tokenizer and template, if it has them. Raises LoadFailed."""
    if not (folder / "tokenizer.json").exists():
        return ReadFolder()
    files = load_tokenizer_files(folder)
    tokenizer = Tokenizer.from_files(files)
    template = None
    if files.chat_template:
        template = ChatTemplate(
            files.chat_template,
            files.special_texts,
            tokenizer.special_texts,
            files.tool_template,
        )
    return ReadFolder(tokenizer, template, files.eos_token_ids)
