"""Faults of a repository, found without serving it and without running model code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api import About, InvalidConfig, LoadFailed, ModelFiles, ServingError
from trivet.backends.registry import choose_about, find_backend
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.repository.check import faults
from trivet.server.repository.config import (
    CONFIG_NAME,
    config_of,
    normalise,
    parse_config,
    select_versions,
)
from trivet.server.repository.layout import ModelFolder
from trivet.server.repository.scan import (
    RepositoryUnreadableError,
    is_ignored,
    scan,
)
from trivet.server.repository.unread import unread_fields, unread_parameters

_POSITION = re.compile(r"^(?P<file>\S+?):(?P<line>\d+):(?P<column>\d+): (?P<what>.*)$", re.DOTALL)
_LFS = b"version https://git-lfs"
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".bin", ".pth")


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding."""

    severity: str
    """error: the model will not serve; warning: it will, but perhaps not as meant."""
    code: str
    path: str
    message: str
    fix: str = ""
    line: int = 0
    """From 1; 0 where the finding is about a whole file or folder."""
    column: int = 0

    @property
    def place(self) -> str:
        """path:line:column, as far as known."""
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


def validate(root: Path) -> list[Diagnostic]:
    """All findings of a repository folder, by model."""
    try:
        snapshot = scan([root])
    except RepositoryUnreadableError as error:
        return [Diagnostic("error", "repository-unreadable", str(root), str(error))]
    found = [
        Diagnostic("error", "folder-unusable", name, reason)
        for name, reason in snapshot.problems.items()
    ]
    for folder in snapshot.models.values():
        found += _check_model(folder)
    if not snapshot.models and not found:
        found.append(
            Diagnostic(
                "warning",
                "repository-empty",
                str(root),
                "there is no model folder",
                "a model is FOLDER/<name>/<version>/<file>",
            )
        )
    return sorted(found, key=lambda each: (each.path, each.line, each.code))


def _check_model(folder: ModelFolder) -> Iterator[Diagnostic]:
    name = folder.name
    if not folder.lone:
        yield from _odd_names(folder)
    yield from _odd_files(folder)
    if folder.is_stranger:
        yield Diagnostic("error", "not-a-model", name, folder.advice)
        return
    config_path = f"{name}/{CONFIG_NAME}"
    try:
        config = config_of(folder)
    except InvalidConfig as error:
        yield _positioned(error.message, config_path)
        return
    about = _about(config, folder)
    for fault in faults(normalise(_settled(config, about), about), about):
        line = _line_of(folder.path / CONFIG_NAME, fault)
        yield Diagnostic("error", _code_of(fault), config_path, fault, line=line)
    if about is not None:
        yield from _said_in_vain(folder, config, about)
    if not folder.versions:
        yield Diagnostic(
            "error", "no-version", name, "the model has no version folder", "put its files into 1/"
        )
        return
    chosen = select_versions(config, folder.versions)
    if not chosen:
        yield Diagnostic(
            "error",
            "no-version-selected",
            config_path,
            f"version_policy selects none of the versions {sorted(folder.versions)}",
        )
    for version in chosen:
        yield from _check_version(folder, config, version)


def _about(config: ModelConfig, folder: ModelFolder) -> About | None:
    """What the model's backend says of itself; None where none is known."""
    try:
        return choose_about(config, folder.files(max(folder.versions, default=1)))
    except LoadFailed:
        return None


def _settled(config: ModelConfig, about: About | None) -> ModelConfig:
    """The config without tensors that are only named, where the backend fills in the rest."""
    if about is None or not {"input", "output"} <= about.completes:
        return config
    settled = ModelConfig()
    settled.CopyFrom(config)
    del settled.input[:], settled.output[:]
    settled.input.extend(each for each in config.input if each.data_type or each.dims)
    settled.output.extend(each for each in config.output if each.data_type or each.dims)
    return settled


def _said_in_vain(folder: ModelFolder, config: ModelConfig, about: About) -> Iterator[Diagnostic]:
    path = f"{folder.name}/{CONFIG_NAME}"
    for name in unread_parameters(config, about):
        yield Diagnostic(
            "warning",
            "parameter-unread",
            path,
            f"parameter '{name}' is not read by backend '{about.word}'",
            about.likely_parameter(name),
            line=_line_of(folder.path / CONFIG_NAME, f"'{name}'"),
        )
    for name in unread_fields(config, about):
        yield Diagnostic(
            "warning",
            "field-unread",
            path,
            f"'{name}' is not read by backend '{about.word}'",
            "leave it out",
            line=_line_of(folder.path / CONFIG_NAME, f"'{name.rpartition('.')[2]}'"),
        )


def _odd_names(folder: ModelFolder) -> Iterator[Diagnostic]:
    for path in sorted(folder.path.iterdir()):
        if not path.is_dir() or is_ignored(path.name):
            continue
        if path.name.isdigit() and (path.name.startswith("0") or len(path.name) > 19):
            yield Diagnostic(
                "warning",
                "version-name",
                f"{folder.name}/{path.name}",
                "is no version: those are 1, 2, 3 ... without leading zeros, at most 19 digits",
                "rename the folder",
            )
        elif re.fullmatch(r"[vV]?\d+[a-z]?|-\d+", path.name) and not path.name.isdigit():
            yield Diagnostic(
                "warning",
                "version-name",
                f"{folder.name}/{path.name}",
                "looks like a version but is none",
                "name it with a plain number",
            )


def _odd_files(folder: ModelFolder) -> Iterator[Diagnostic]:
    stamps = [(name, size) for name, size, _, _ in folder.config]
    for version, fingerprint in folder.versions.items():
        if folder.lone or folder.has_folders:
            before = f"{version}/" if folder.has_folders else ""
            stamps += [(f"{before}{name}", size) for name, size, _, _ in fingerprint]
    for name, size in stamps:
        path = name if folder.lone else f"{folder.name}/{name}"
        if size < 0:
            yield Diagnostic(
                "error", "dangling-link", path, "is a link to a file that is not there"
            )
        elif size == 0 and not name.endswith((".py", ".gitkeep", ".txt")):
            yield Diagnostic("error", "empty-file", path, "is empty", "copy it again")
        elif size < 1024 and _starts_with(folder.path / name, _LFS):
            yield Diagnostic(
                "error", "lfs-pointer", path, "is a Git LFS pointer, not the file", "git lfs pull"
            )
        elif name.endswith(_PICKLE_SUFFIXES):
            yield Diagnostic(
                "warning",
                "pickle",
                path,
                "may be a pickle, which runs code when it is loaded; it is never loaded here",
                "save it as safetensors, ONNX or torch.export",
            )


def _starts_with(path: Path, head: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def _check_version(folder: ModelFolder, config: ModelConfig, version: int) -> Iterator[Diagnostic]:
    files = folder.files(version)
    path = f"{folder.name}/{version}" if folder.has_folders else folder.name
    try:
        found = find_backend(config, files)
    except LoadFailed as error:
        is_config = isinstance(error, InvalidConfig)
        code = "backend-unknown" if is_config else "framework-missing"
        yield Diagnostic("error" if is_config else "warning", code, path, error.message)
        return
    given = ModelConfig()
    given.CopyFrom(config)
    about = found.about
    given.backend = about.word
    if found.model_file:
        given.default_model_filename = found.model_file
    if about.only_reads:
        try:
            found.backend.complete(given, files)
        except ServingError as error:
            yield Diagnostic("error", "model-file", path, error.message)
    elif about.model_files:
        yield from _check_artifact(given, files, path, about)
    yield from _check_labels(folder, given)


def _check_artifact(
    config: ModelConfig, files: ModelFiles, path: str, about: About
) -> Iterator[Diagnostic]:
    names = (*about.model_files, *about.shared_names)
    if config.default_model_filename:
        names = (config.default_model_filename,)
    names += tuple(sorted(config.cc_model_filenames.values()))
    if not any((files.version_dir / name).exists() for name in names):
        missing = f"has none of {', '.join(names)} for backend '{about.word}'"
        yield Diagnostic("error", "model-file", path, missing)


def _check_labels(folder: ModelFolder, config: ModelConfig) -> Iterator[Diagnostic]:
    for output in config.output:
        name = output.label_filename
        if name and not (folder.path / name).is_file():
            yield Diagnostic(
                "error",
                "label-file",
                f"{folder.name}/{name}",
                f"label file of output '{output.name}' is not there",
            )


def _positioned(message: str, path: str) -> Diagnostic:
    found = _POSITION.match(message)
    if found is None:
        return Diagnostic("error", "config-unreadable", path, message)
    code = "config-unknown-field" if "unknown field" in found["what"] else "config-syntax"
    return Diagnostic(
        "error",
        code,
        found["file"],
        found["what"],
        line=int(found["line"]),
        column=int(found["column"]),
    )


def _line_of(path: Path, fault: str) -> int:
    """The line of a config that a fault is most likely about: the first one that names its tensor
    or its field; 1 when none does."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        parse_config("\n".join(lines), path.name)
    except (OSError, ServingError):
        return 0
    words = re.findall(r"'([^']+)'", fault) + re.findall(r"\b[a-z]+_[a-z_]+\b", fault)
    for word in words:
        for number, line in enumerate(lines, 1):
            if word in line:
                return number
    return 1 if lines else 0


_CODES = (
    ("reshape", "reshape"),
    ("label_filename", "label-path"),
    ("default_model_filename", "model-path"),
    ("priority", "priority"),
    ("preserve_ordering", "ordering"),
    ("preferred size", "preferred-size"),
    ("model_warmup", "warmup"),
    ("instance_group", "instance-group"),
    ("model_repository_agents", "repository-agents"),
    ("version_policy", "version-policy"),
    ("max_batch_size", "max-batch-size"),
    ("twice", "tensor-twice"),
    ("no name", "tensor-name"),
    ("data_type", "data-type"),
    ("dimension", "dims"),
    ("dims", "dims"),
)


def _code_of(fault: str) -> str:
    return next((code for word, code in _CODES if word in fault), "config")
