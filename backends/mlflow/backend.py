"""Opens MLflow's model folders.

A flavour whose file is data is computed by the backend for that kind of file. All others are
pickles or code: they are loaded by MLflow itself, in a process of its own, for models that the
operator has named.
"""

import logging
from pathlib import Path, PurePosixPath

from trivet.backends.api import (
    Environment,
    Instance,
    LoadFailed,
    ModelFiles,
    Pickles,
    Placement,
    Recipe,
    StartsProcesses,
    refuse_pickle,
)
from trivet.backends.mlflow.about import ABOUT, MANIFEST
from trivet.backends.mlflow.manifest import Manifest, read_manifest
from trivet.backends.mlflow.native import Native, native_of
from trivet.backends.process import complete_isolated, open_isolated
from trivet.backends.registry import about_of, open_backend
from trivet.protos.model_config_pb2 import ModelConfig, ModelInput

log = logging.getLogger(__name__)

_FIX = (
    "log it with a flavour whose file is data (sklearn with serialization_format='skops', xgboost, "
    "lightgbm, catboost, onnx)"
)


class MlflowBackend:
    """`backend: "mlflow"`."""

    def starts_processes(self, config: ModelConfig) -> bool:  # noqa: ARG002 - of StartsProcesses
        """See StartsProcesses: where a flavour needs one."""
        return True

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """See ChecksFiles: what the manifest says, and whether code and pickles are allowed."""
        path, manifest = _read(config, files)
        native = _native(path, manifest)
        if native is None:
            _is_apart(config, files, path, manifest)
        else:
            files.artifact(_inner(config, manifest, native), native.file)

    def environment(self, config: ModelConfig, files: ModelFiles) -> Environment | Recipe | None:
        """See WantsEnvironment: of a flavour that MLflow loads, what its requirements.txt lists, if
        that may be installed. MLflow lists the very versions that it was logged with; as it does
        itself, it tries those that the server has, and says which they are not."""
        # Not in the model's own process, which has the environment's packages.
        from trivet.backends.environments.requirements import FILE
        from trivet.backends.environments.wanted import required

        path, manifest = _read(config, files)
        listed = path.parent / FILE
        is_apart = files.pickles is Pickles.APART and _native(path, manifest) is None
        if not is_apart or not listed.is_file():
            return None
        try:
            return required(listed, config, files)
        except LoadFailed as error:
            if files.may_install:
                raise
            log.warning("%s", error.message)
            return None

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """Raises InvalidConfig, LoadFailed."""
        path, manifest = _read(config, files)
        native = _native(path, manifest)
        if native is not None:
            return _completed_natively(config, files, manifest, native)
        if _is_apart(config, files, path, manifest):
            return complete_isolated(ABOUT.word, config, files)
        from trivet.backends.mlflow.pyfunc import complete_pyfunc

        return complete_pyfunc(config, manifest)

    def open(self, config: ModelConfig, files: ModelFiles, placement: Placement) -> Instance:
        """Raises LoadFailed, InvalidConfig."""
        path, manifest = _read(config, files)
        native = _native(path, manifest)
        if native is not None:
            return _opened_natively(config, files, placement, manifest, native)
        if _is_apart(config, files, path, manifest):
            return open_isolated(ABOUT.word, config, files, placement)
        from trivet.backends.mlflow.pyfunc import PyfuncInstance, complete_pyfunc

        return PyfuncInstance.open(path.parent, complete_pyfunc(config, manifest), manifest)


def _read(config: ModelConfig, files: ModelFiles) -> tuple[Path, Manifest]:
    path = files.artifact(config, MANIFEST)
    return path, read_manifest(path, config.name)


def _native(path: Path, manifest: Manifest) -> Native | None:
    return native_of(manifest, lambda file: (path.parent / file).exists())


def _is_apart(config: ModelConfig, files: ModelFiles, path: Path, manifest: Manifest) -> bool:
    """Whether another process is to do it. Raises LoadFailed where nobody has allowed it."""
    if files.pickles is Pickles.REFUSED:
        names = ", ".join(manifest.flavors)
        what = f"of the flavours {names} alone, which are pickles or code"
        if manifest.code:
            what += f" (it names {manifest.code})"
        raise refuse_pickle(config.name, path, what=what, fix=_FIX)
    return files.pickles is Pickles.APART


def _inner(config: ModelConfig, manifest: Manifest, native: Native) -> ModelConfig:
    """The config as the flavour's backend is to have it: columns of a table are its inputs."""
    inner = ModelConfig()
    inner.CopyFrom(config)
    inner.backend = native.word
    folder = PurePosixPath(config.default_model_filename).parent
    inner.default_model_filename = str(folder / native.file)
    if not inner.input and manifest.inputs.are_columns and manifest.inputs.are_named:
        inner.input.extend(
            ModelInput(name=each.name, data_type=each.datatype.to_config(), dims=[1])
            for each in manifest.inputs.tensors
        )
    return inner


def _completed_natively(
    config: ModelConfig, files: ModelFiles, manifest: Manifest, native: Native
) -> ModelConfig:
    if manifest.code:
        log.info("model '%s': %s is not used", config.name, manifest.code)
    completed = open_backend(native.word).complete(_inner(config, manifest, native), files)
    completed.backend = config.backend
    completed.default_model_filename = config.default_model_filename
    return completed


def _opened_natively(
    config: ModelConfig,
    files: ModelFiles,
    placement: Placement,
    manifest: Manifest,
    native: Native,
) -> Instance:
    backend = open_backend(native.word)
    inner = _inner(config, manifest, native)
    is_apart = about_of(native.word).usual_isolation == "process"
    if is_apart and not (isinstance(backend, StartsProcesses) and backend.starts_processes(inner)):
        return open_isolated(native.word, inner, files, placement)
    return backend.open(inner, files, placement)


BACKEND = MlflowBackend()
