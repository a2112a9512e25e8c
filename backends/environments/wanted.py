"""Which environment a model wants: one that its config names, or one of its requirements."""

import logging
from collections.abc import Sequence
from pathlib import Path

from trivet.backends.api import (
    Environment,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Recipe,
    parameter,
)
from trivet.backends.environments.archive import ArchiveRecipe
from trivet.backends.environments.installing import InstallRecipe
from trivet.backends.environments.layout import Layout
from trivet.backends.environments.requirements import FILE, Requirements, Unmet, pip_line
from trivet.backends.environments.work import Work, limit_of
from trivet.protos.model_config_pb2 import ModelConfig

log = logging.getLogger(__name__)

PARAMETER = "EXECUTION_ENV_PATH"
_MODEL_FOLDER = "$$TRITON_MODEL_DIRECTORY"


def environment_of(config: ModelConfig, files: ModelFiles) -> Environment | Recipe | None:
    """See WantsEnvironment."""
    given = parameter(config, PARAMETER)
    if given:
        return _packed(given, config, files)
    listed = requirements_file(files)
    return None if listed is None else required(listed, config, files)


def requirements_file(files: ModelFiles) -> Path | None:
    """In the version's folder or the model's; of a lone file there is none."""
    if files.lone:
        return None
    places = (files.version_dir / FILE, files.model_dir / FILE)
    return next((path for path in places if path.is_file()), None)


def required(path: Path, config: ModelConfig, files: ModelFiles) -> Recipe | None:
    """How to make one of the file's packages; None where the server's environment has them all.
    Raises InvalidConfig, OSError, and LoadFailed where they may not be installed."""
    wanted = Requirements.read(path, config.name)
    if files.may_install and wanted.refusal:
        raise InvalidConfig(wanted.refusal)
    lacking = wanted.unmet()
    if lacking and files.may_install:
        what = f"model '{config.name}': its {path.name}"
        return InstallRecipe(wanted.text, Work(config.name, what, limit_of(config)))
    if lacking:
        raise LoadFailed(_missing(wanted, lacking, path.name, files, config.name))
    if wanted.refusal:
        log.warning("%s (it is loaded with what the server has)", wanted.refusal)
    return None


def _missing(
    wanted: Requirements, lacking: Sequence[Unmet], file: str, files: ModelFiles, model: str
) -> str:
    beside = f"nstall it beside the server: {pip_line(lacking)}"
    way = (
        f"Start the server with --allow-install {model}, which installs all of it into an "
        f"environment of the model's own, or i{beside}"
    )
    if files.is_sent:
        way = f"For a model that a client sends nothing is installed, whatever its name: i{beside}"
    text = (
        f"model '{model}': its {file} asks for what the server's environment does not have: "
        f"{', '.join(map(str, lacking))}. {way}"
    )
    return f"{text} (for the first: {wanted.refusal})" if wanted.refusal else text


def _packed(given: str, config: ModelConfig, files: ModelFiles) -> Environment | Recipe:
    where = f"model '{config.name}': parameter {PARAMETER} '{Path(given).name}'"
    folder = files.model_dir.resolve()
    path = (folder / given.replace(_MODEL_FOLDER, str(folder))).resolve()
    is_within = path.is_relative_to(folder) and not files.lone
    if files.is_clients and not is_within:
        raise InvalidConfig(
            f"{where} leads out of the model's folder, which only a config.pbtxt in it may do"
        )
    if path.is_dir():
        return Layout.of(path, where).environment(where)
    if not path.is_file():
        raise InvalidConfig(
            f"{where} is not there; it is an archive or folder with an environment, as "
            f"{_MODEL_FOLDER}/env.tar.gz"
        )
    return ArchiveRecipe.of(path, Work(config.name, where, limit_of(config)))
