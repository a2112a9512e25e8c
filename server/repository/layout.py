"""Models that lie otherwise than NAME/VERSION/FILE: folders without a version folder, lone files.

What nothing takes for a model is a stranger: a folder or file, and a sentence that says what to do
about it. It is shown, and serves nobody; nothing else suffers from it.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from trivet.backends.api import About, Claim, Listing, ModelFiles
from trivet.backends.api.adapting import ADAPTERS
from trivet.backends.api.naming import key_of
from trivet.backends.registry import advice, claims

Fingerprint = tuple[tuple[str, int, int, int], ...]
"""Of each file: path in the folder, size in bytes, modification time in ns, inode."""

Abouts = Collection[About]
"""What all backends say of themselves."""

EMPTY = (
    "the model repository holds no model; put one in as a folder, NAME/1/FILE or NAME/FILE, or as "
    "a lone file such as NAME.onnx or NAME.gguf"
)
TRAFFIC_FILE = "traffic.toml"
"""Says who gets which version; what the versions are made of does not depend on it."""
EVALUATION_FILE = "eval.toml"
EVALUATION_FOLDER = "evals"
"""What an evaluation of the versions is: they do not depend on it either."""
CONFIG_FOLDERS = ("configs", "initial_state", "warmup")
"""Folders beside the versions that hold nothing of a version."""
_CONFIG_SUFFIXES = (".pbtxt", ".txt")
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.\w+$)")
"""Of the name of a file that is one of several parts."""
_COMPANION = re.compile(r"^(?P<file>.+\.\w+)[._]data$")
"""Weights beside a file that is named as it: x.onnx_data, x.onnx.data."""
_WHOLE = (Claim.MANIFEST, Claim.FOLDER, Claim.CONTENT)
"""Claims to a folder, not to one file in it."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model's folder at one moment, or its files where it has none of its own."""

    name: str
    path: Path
    """The folder; the repository for lone files."""
    config: Fingerprint
    """Of everything that is not in a version folder: config, labels, warm-up data."""
    versions: Mapping[int, Fingerprint]
    is_flat: bool = False
    """Whether the files of version 1 lie in `path` itself."""
    lone: tuple[str, ...] = ()
    """The files of a model without a folder."""
    advice: str = ""
    """Of a stranger: what it is and what to do about it."""
    is_sent: bool = False
    """Whether a client has sent it: what the operator allows a model of that name is not for it."""
    namespace: str = ""
    """The repository, where these are namespaces."""
    traffic: Fingerprint = ()
    """Of its traffic.toml, where it has one."""
    evaluation: Fingerprint = ()
    """Of its eval.toml and its folder `evals`."""
    adapters: Fingerprint = ()
    """Of what is made of the model while it serves: its folder `adapters`."""

    @property
    def key(self) -> str:
        """What the server knows the model by."""
        return key_of(self.namespace, self.name)

    @property
    def is_stranger(self) -> bool:
        """Whether nothing takes it for a model."""
        return bool(self.advice)

    @property
    def has_folders(self) -> bool:
        """Whether it has version folders."""
        return bool(self.versions) and not self.is_flat

    def files(self, version: int) -> ModelFiles:
        """Where those of a version are."""
        # The repository may be given as ".".
        is_named = self.path.name == self.name
        given_name = "" if is_named else self.name
        return ModelFiles(self.path, version, self.is_flat, self.lone, given_name)


def parted(stamps: Fingerprint) -> tuple[Fingerprint, Fingerprint]:
    """The files of a model's folder that are the model's, and those of its adapters."""
    prefix = f"{ADAPTERS}/"
    own = tuple(stamp for stamp in stamps if not stamp[0].startswith(prefix))
    return own, tuple(stamp for stamp in stamps if stamp[0].startswith(prefix))


def flat(path: Path, stamps: Fingerprint, known: Abouts, adapters: Fingerprint) -> ModelFolder:
    """A folder in which no version folder lies: version 1 itself, or a stranger. Raises OSError."""
    name, has_config = path.name, any(stamp[0].endswith(".pbtxt") for stamp in stamps)
    listing = Listing.of(ModelFiles(path, 1, is_flat=True))
    is_claimed = any(match.claim is not Claim.MODEL_NAME for match, _ in claims(listing, known))
    if is_claimed or (has_config and any(map(_is_content, stamps))):
        content = tuple(stamp for stamp in stamps if not stamp[0].endswith(".pbtxt"))
        return ModelFolder(name, path, stamps, {1: content}, is_flat=True, adapters=adapters)
    if has_config or not stamps:
        return ModelFolder(name, path, stamps, {})
    return ModelFolder(name, path, stamps, {}, advice=advice(listing, known))


def _is_content(stamp: tuple[str, int, int, int]) -> bool:
    folder, _, _ = stamp[0].rpartition("/")
    inner = PurePath(folder).parts
    if inner and inner[0] in CONFIG_FOLDERS:
        return False
    return not stamp[0].endswith(_CONFIG_SUFFIXES)


def is_one_model(root: Path, known: Abouts) -> bool:
    """Whether a repository's own folder is a model: somebody serves the folder of one. Raises
    OSError."""
    listing = Listing.of(ModelFiles(root, 1, is_flat=True))
    match, _ = next(iter(claims(listing, known)), (None, None))
    return match is not None and match.claim in _WHOLE and match.model_file in ("", ".")


def model_of_file(name: str, known: Abouts) -> str:
    """The model that a file beside the folders is by its name alone; empty for others."""
    listing = Listing(frozenset({name}), paths=frozenset({name}))
    is_claimed = any(match.model_file for match, _ in claims(listing, known))
    return PurePath(name).stem if is_claimed else ""


def lone_models(root: Path, stamps: Fingerprint, known: Abouts) -> Iterator[ModelFolder]:
    """The models among the files that lie in the repository itself, and the strangers that look as
    if they were some. Others are nobody's business. Raises OSError."""
    for name, group in _groups(stamps).items():
        files = tuple(stamp[0] for stamp in group)
        listing = _listing(root, name, files)
        found = [match for match, about in claims(listing, known) if about.reads_model_file]
        if any(match.claim is not Claim.MODEL_NAME for match in found):
            yield ModelFolder(name, root, (), {1: tuple(group)}, is_flat=True, lone=files)
        elif text := advice(listing, known, is_sure=True):
            yield ModelFolder(files[0], root, tuple(group), {}, lone=files, advice=text)


def _groups(stamps: Fingerprint) -> dict[str, list[tuple[str, int, int, int]]]:
    """Files that belong together, by the model's name: parts of one, and those of the same stem."""
    groups: dict[str, list[tuple[str, int, int, int]]] = {}
    names = {stamp[0] for stamp in stamps}
    for stamp in stamps:
        file = stamp[0]
        owner = _COMPANION.match(file)
        if owner is not None and owner["file"] in names:
            file = owner["file"]
        groups.setdefault(PurePath(_PART.sub("", file)).stem, []).append(stamp)
    return groups


def _listing(root: Path, name: str, files: Sequence[str]) -> Listing:
    return Listing.of(ModelFiles(root, 1, is_flat=True, lone=tuple(files), given_name=name))
