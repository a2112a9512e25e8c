"""The files of one model version on disk, and where an instance is placed."""

from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api.errors import InvalidConfig
from trivet.backends.api.pickles import Pickles
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True)
class ModelFiles:
    """Where a version's files are. `version_dir` is `model_dir/<version>` and need not exist for
    backends that keep nothing on disk."""

    model_dir: Path
    version: int
    pickles: Pickles = Pickles.REFUSED

    @property
    def version_dir(self) -> Path:
        return self.model_dir / str(self.version)

    def artifact(self, config: ModelConfig, default_name: str) -> Path:
        """The version's model file: `default_model_filename` of the config, else `default_name`.

        Raises InvalidConfig when it is missing or lies outside the model's folder.
        """
        return self.inside(self.version_dir, config.default_model_filename or default_name)

    def inside(self, folder: Path, name: str) -> Path:
        """`folder`/`name`, which must exist and stay inside the model's folder."""
        path = (folder / name).resolve()
        if not path.is_relative_to(self.model_dir.resolve()):
            raise InvalidConfig(
                f"'{name}' points outside the folder of model '{self.model_dir.name}'"
            )
        if not path.exists():
            raise InvalidConfig(
                f"model '{self.model_dir.name}' version {self.version} has no file '{name}' in "
                f"'{folder.relative_to(self.model_dir.parent)}'"
            )
        return path


@dataclass(frozen=True)
class Placement:
    """Where and as what one instance runs."""

    name: str
    """Triton's instance name: `<model>_<group index>_<instance index>`."""
    kind: str
    """KIND_CPU, KIND_GPU or KIND_MODEL; KIND_AUTO has been resolved."""
    device_id: int
    """GPU ordinal; 0 for KIND_CPU."""
    cpu_threads: int
    """How many compute threads this instance should use: the cores over the instances."""
    profiles: tuple[str, ...] = ()
    """Of the instance group: which of an engine's optimisation profiles it uses; none: all."""
    host_policy: str = ""
    """Of its group; see `--host-policy`."""
    device_uuid: str = ""
    """A GPU or MIG device by its UUID; it is the only one that the instance's own process sees."""
