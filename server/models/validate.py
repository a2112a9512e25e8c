"""Faults of a repository, found without serving it and without running model code."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from trivet.backends.api import (
    About,
    ChecksFiles,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    ServingError,
    UnreadableFiles,
)
from trivet.backends.registry import choose_about, find_backend, open_backend
from trivet.protos.model_config_pb2 import ModelConfig
from trivet.server.evaluation.case import read_set
from trivet.server.evaluation.config import read_config
from trivet.server.evaluation.faults import SetFault
from trivet.server.models.allowed import Allowed
from trivet.server.models.diagnostic import Diagnostic, code_of, line_of, positioned
from trivet.server.models.labels import read_labels
from trivet.server.models.offline import NotInFilesError, OfflineModels, StepMissing
from trivet.server.models.traffic import read_traffic
from trivet.server.repository.check import faults
from trivet.server.repository.config import (
    CONFIG_NAME,
    config_of,
    no_version,
    normalise,
    select_versions,
)
from trivet.server.repository.layout import EMPTY, EVALUATION_FILE, TRAFFIC_FILE, ModelFolder
from trivet.server.repository.names import ambiguous
from trivet.server.repository.scan import (
    RepositoryUnreadableError,
    is_ignored,
    scan,
)
from trivet.server.repository.steps import steps_of
from trivet.server.repository.unread import unread_fields, unread_parameters
from trivet.server.rollouts.policy import policy_of

_LFS = b"version https://git-lfs"
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".bin", ".pth")


def validate(
    roots: Sequence[Path], *, is_namespaced: bool = False, allowed: Allowed | None = None
) -> list[Diagnostic]:
    """All findings of repository folders that one server is to serve, by model. What a load would
    refuse without opening a model is refused here in the same words. `allowed`: by options of the
    server."""
    places = ", ".join(map(str, roots))
    try:
        snapshot = scan(roots, is_namespaced=is_namespaced)
    except RepositoryUnreadableError as error:
        return [Diagnostic("error", "repository-unreadable", places, str(error))]
    found = [
        Diagnostic("error", "folder-unusable", name, reason)
        for name, reason in snapshot.problems.items()
    ]
    models = OfflineModels(snapshot, allowed)
    for folder in snapshot.models.values():
        diagnostics = (*_check_model(folder, models), *_ambiguous_steps(folder, models))
        root = folder.path if folder.lone else folder.path.parent
        before = f"{root}/" if len(roots) > 1 else ""
        found += (replace(each, path=before + each.path) for each in diagnostics)
    if not snapshot.models and not found:
        found.append(Diagnostic("warning", "repository-empty", places, EMPTY))
    return sorted(found, key=lambda each: (each.path, each.line, each.code))


def _check_model(folder: ModelFolder, models: OfflineModels) -> Iterator[Diagnostic]:
    name = folder.name
    if not folder.lone:
        yield from _odd_names(folder)
    yield from _odd_files(folder)
    if folder.is_stranger:
        yield Diagnostic("error", "not-a-model", name, folder.advice)
        return
    yield from _check_evaluation(folder)
    yield from _check_traffic(folder)
    config_path = f"{name}/{CONFIG_NAME}"
    try:
        config = config_of(folder)
    except InvalidConfig as error:
        yield positioned(error.message, config_path)
        return
    about = _about(config, folder)
    found = []
    for fault in faults(normalise(_settled(config, about), about), about):
        line = line_of(folder.path / CONFIG_NAME, fault)
        found.append(Diagnostic("error", code_of(fault), config_path, fault, line=line))
    yield from found
    if about is not None:
        yield from _said_in_vain(folder, config, about)
    chosen = select_versions(config, folder.versions)
    if not chosen:
        code, path = "no-version-selected", config_path
        if not folder.versions:
            code, path = "no-version", name
        yield Diagnostic("error", code, path, no_version(folder))
    told = {each.message for each in found}
    for version in chosen:
        for each in _check_version(folder, config, version, models):
            if not any(message in each.message for message in told):
                yield each


def _check_evaluation(folder: ModelFolder) -> Iterator[Diagnostic]:
    """What is wrong with its eval.toml, in the words of a load, and with the sets."""
    if not folder.evaluation:
        return
    try:
        for path in read_config(folder.path).files:
            read_set(path)
    except (SetFault, OSError) as fault:
        yield Diagnostic("error", "evaluation", f"{folder.name}/{EVALUATION_FILE}", str(fault))


def _check_traffic(folder: ModelFolder) -> Iterator[Diagnostic]:
    """What is wrong with its traffic.toml, in the words of a load."""
    try:
        policy_of(read_traffic(folder))
    except (InvalidConfig, UnreadableFiles) as error:
        yield Diagnostic("error", "traffic", f"{folder.name}/{TRAFFIC_FILE}", error.message)


def _ambiguous_steps(folder: ModelFolder, models: OfflineModels) -> Iterator[Diagnostic]:
    with suppress(ServingError):
        for reference in sorted(steps_of(config_of(folder), folder.namespace)):
            bearers = models.names.meant(reference)
            if len(bearers) > 1:
                yield Diagnostic(
                    "error",
                    "step-ambiguous",
                    f"{folder.name}/{CONFIG_NAME}",
                    ambiguous(reference.name, bearers).message,
                    "say which one in the step's model_namespace",
                    line=line_of(folder.path / CONFIG_NAME, f"'{reference.name}'"),
                )


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
            line=line_of(folder.path / CONFIG_NAME, f"'{name}'"),
        )
    for name in unread_fields(config, about, is_namespaced=bool(folder.namespace)):
        yield Diagnostic(
            "warning",
            "field-unread",
            path,
            f"'{name}' is not read by backend '{about.word}'",
            "leave it out",
            line=line_of(folder.path / CONFIG_NAME, f"'{name.rpartition('.')[2]}'"),
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
                "may be a pickle, which runs code when it is loaded; it is loaded only where "
                "--allow-pickle names the model",
                "save it as safetensors, ONNX or torch.export",
            )


def _starts_with(path: Path, head: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


def _check_version(
    folder: ModelFolder, config: ModelConfig, version: int, models: OfflineModels
) -> Iterator[Diagnostic]:
    path = f"{folder.name}/{version}" if folder.has_folders else folder.name
    labels = list(_check_labels(folder, config, version))
    yield from labels
    try:
        models.prepare(folder, config, version)
        yield from _check_files(models, folder, config, version, path, is_prepared=True)
    except NotInFilesError:
        yield from _check_files(models, folder, config, version, path, is_prepared=False)
    except StepMissing as error:
        yield Diagnostic("error", "step-missing", f"{folder.name}/{CONFIG_NAME}", error.message)
    except LoadFailed as error:
        if error.message not in {each.message for each in labels}:
            yield _refusal(models, folder, config, version, path, error)


def _refusal(
    models: OfflineModels,
    folder: ModelFolder,
    config: ModelConfig,
    version: int,
    path: str,
    error: LoadFailed,
) -> Diagnostic:
    """With its code: whether it is the config, the files or this machine that is at fault."""
    try:
        about = choose_about(config, models.files(folder, version))
        open_backend(about.word)
    except InvalidConfig:
        return Diagnostic("error", "backend-unknown", path, error.message)
    except LoadFailed:
        return Diagnostic("warning", "framework-missing", path, error.message)
    if config.HasField("ensemble_scheduling"):
        return Diagnostic("error", "ensemble-steps", f"{folder.name}/{CONFIG_NAME}", error.message)
    return Diagnostic("error", "model-file", path, error.message)


def _check_files(
    models: OfflineModels,
    folder: ModelFolder,
    config: ModelConfig,
    version: int,
    path: str,
    *,
    is_prepared: bool,
) -> Iterator[Diagnostic]:
    """What a load refuses before it runs anything, and no config tells. `is_prepared`: whether its
    backend has found the model file."""
    files = models.files(folder, version)
    found = find_backend(config, files)
    given = ModelConfig()
    given.CopyFrom(config)
    given.default_model_filename = config.default_model_filename or found.model_file
    try:
        if not is_prepared:
            _require_artifact(given, files, found.about)
        if isinstance(found.backend, ChecksFiles):
            found.backend.check_files(given, files)
    except ServingError as error:
        yield Diagnostic("error", "model-file", path, error.message)


def _require_artifact(config: ModelConfig, files: ModelFiles, about: About) -> None:
    names = (*about.model_files, *about.shared_names)
    is_there = any((files.version_dir / name).exists() for name in names)
    if about.model_files and not is_there and not config.cc_model_filenames:
        files.artifact(config, about.model_files[0])


def _check_labels(folder: ModelFolder, config: ModelConfig, version: int) -> Iterator[Diagnostic]:
    for output in config.output:
        if not output.label_filename:
            continue
        try:
            read_labels(ModelConfig(output=[output]), folder.files(version))
        except InvalidConfig as error:
            path = f"{folder.name}/{output.label_filename}"
            yield Diagnostic("error", "label-file", path, error.message)
