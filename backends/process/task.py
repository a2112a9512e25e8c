"""What an instance process is started for: to open an instance, or only to complete a config."""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path

from trivet.backends.api import ModelFiles, Pickles, Placement
from trivet.backends.process.channel import Header
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True)
class Task:
    """The first message to an instance process. Without a placement: complete the config."""

    backend: str
    """The `backend` word of the config."""
    config: ModelConfig
    files: ModelFiles
    placement: Placement | None
    log_level: int

    @property
    def name(self) -> str:
        """The instance's name, for logs and errors."""
        return self.placement.name if self.placement else f"{self.config.name} (config)"

    def to_header(self) -> Header:
        return {
            "op": "start",
            "backend": self.backend,
            "config": encode_config(self.config),
            "files": {
                **asdict(self.files),
                "model_dir": str(self.files.model_dir),
                "pickles": self.files.pickles is not Pickles.REFUSED,
                "environment": None,
            },
            "placement": asdict(self.placement) if self.placement else None,
            "log_level": self.log_level,
        }

    @classmethod
    def from_header(cls, header: Header) -> "Task":
        placement = header["placement"]
        return cls(
            header["backend"],
            decode_config(header["config"]),
            _files(header["files"]),
            _placement(placement) if placement else None,
            header["log_level"],
        )


def _files(given: Header) -> ModelFiles:
    read = {
        "model_dir": Path(given["model_dir"]),
        "lone": tuple(given["lone"]),
        "pickles": Pickles.HERE if given["pickles"] else Pickles.REFUSED,
    }
    return ModelFiles(**{**given, **read})


def _placement(given: Header) -> Placement:
    return Placement(**{**given, "profiles": tuple(given["profiles"])})


def encode_config(config: ModelConfig) -> str:
    return base64.b64encode(config.SerializeToString()).decode()


def decode_config(text: str) -> ModelConfig:
    return ModelConfig.FromString(base64.b64decode(text))
