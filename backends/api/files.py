"""The files of one model version on disk, and where an instance is placed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trivet.backends.api.environment import Environment
from trivet.backends.api.errors import InvalidConfig
from trivet.backends.api.pickles import Pickles
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True)
class ModelFiles:
    """Where a version's files are: in `model_dir/<version>`, which need not exist for backends that
    keep nothing on disk; or, for a model without version folders, in `model_dir` itself.

    `lone`: the files of a model that has no folder of its own; they lie in `model_dir`, which is
    then the repository, among others that are not the model's.
    """

    model_dir: Path
    version: int
    is_flat: bool = False
    """Whether the version's files lie in `model_dir` itself."""
    lone: tuple[str, ...] = ()
    given_name: str = ""
    """Of a model that is not called as `model_dir`."""
    pickles: Pickles = Pickles.REFUSED
    may_install: bool = False
    """Whether the operator lets the packages that they ask for be installed."""
    is_clients: bool = False
    """Whether a client has sent them, or the config: then no path in it leads out of the folder."""
    is_sent: bool = False
    """Whether a client has sent the files: what is allowed by a model's name is not for them."""
    environment: Environment | None = None
    """What processes of the model run with; None: as the server itself."""

    @property
    def name(self) -> str:
        """Of the model."""
        return self.given_name or self.model_dir.name

    @property
    def version_dir(self) -> Path:
        return self.model_dir if self.is_flat else self.model_dir / str(self.version)

    def entries(self) -> list[Path]:
        """The files and folders at the top of the version that are there. Raises OSError."""
        folder = self.version_dir
        if self.lone:
            paths: Iterator[Path] = (folder / name for name in self.lone)
        else:
            paths = folder.iterdir() if folder.is_dir() else iter(())
        return [path for path in paths if path.exists()]

    def walk(self) -> Iterator[Path]:
        """All files of the version, at any depth. Raises OSError."""
        for path in self.entries():
            if path.is_dir():
                yield from (each for each in path.rglob("*") if each.is_file())
            elif path.is_file():
                yield path

    def artifact(self, config: ModelConfig, default_name: str) -> Path:
        """The version's model file: `default_model_filename` of the config, else `default_name`.

        Raises InvalidConfig when it is missing or lies outside the model's folder.
        """
        return self.inside(self.version_dir, config.default_model_filename or default_name)

    def inside(self, folder: Path, name: str) -> Path:
        """`folder`/`name`, which must exist and stay inside the model's folder."""
        path = (folder / name).resolve()
        if not path.is_relative_to(self.model_dir.resolve()) or self._is_anothers(name):
            raise InvalidConfig(f"'{name}' points outside the folder of model '{self.name}'")
        if not path.exists():
            where = "" if self.lone else f" in '{folder.relative_to(self.model_dir.parent)}'"
            raise InvalidConfig(
                f"model '{self.name}' version {self.version} has no file '{name}'{where}"
            )
        return path

    def _is_anothers(self, name: str) -> bool:
        return bool(self.lone) and name not in self.lone


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
