"""Reads the model parameters of the PyTorch backend. Names and defaults are Triton's."""

import json
from dataclasses import dataclass
from typing import Any, Self

from trivet.backends.api import InvalidConfig
from trivet.protos.model_config_pb2 import ModelConfig


@dataclass(frozen=True, slots=True)
class PyTorchParameters:
    """What a config asks of the backend. 0 threads: not given."""

    inference_mode: bool
    optimized_execution: bool
    clean_cache: bool
    use_cudnn: bool
    intra_op_threads: int
    inter_op_threads: int
    class_name: str
    compile_options: dict[str, Any] | None
    """Keyword arguments of torch.compile; None: not compiled."""

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Raises InvalidConfig for a bad value."""
        return cls(
            inference_mode=_flag(config, "INFERENCE_MODE", default=True),
            optimized_execution=not _flag(config, "DISABLE_OPTIMIZED_EXECUTION"),
            clean_cache=_flag(config, "ENABLE_CACHE_CLEANING"),
            use_cudnn=not _flag(config, "DISABLE_CUDNN"),
            intra_op_threads=_count(config, "INTRA_OP_THREAD_COUNT")
            or _count(config, "NUM_THREADS"),
            inter_op_threads=_count(config, "INTER_OP_THREAD_COUNT")
            or _count(config, "NUM_INTEROP_THREADS"),
            class_name=_text(config, "MODEL_CLASS_NAME"),
            compile_options=_compile_options(config),
        )


def _text(config: ModelConfig, name: str) -> str:
    return config.parameters[name].string_value if name in config.parameters else ""


def _flag(config: ModelConfig, name: str, *, default: bool = False) -> bool:
    text = _text(config, name).lower() or str(default).lower()
    if text not in ("true", "false", "1", "0"):
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be true or false, got '{text}'"
        )
    return text in ("true", "1")


def _count(config: ModelConfig, name: str) -> int:
    text = _text(config, name) or "0"
    if not text.isascii() or not text.isdigit():
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be a whole number from 0, got '{text}'"
        )
    return int(text)


def _compile_options(config: ModelConfig) -> dict[str, Any] | None:
    name = "TORCH_COMPILE_OPTIONAL_PARAMETERS"
    text = _text(config, name)
    if not text:
        return None
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be a JSON object with arguments of "
            f"torch.compile, got '{text}'"
        )
    # Triton's files write booleans as strings.
    words = {"true": True, "false": False}
    options = {k: words.get(v.lower(), v) if isinstance(v, str) else v for k, v in options.items()}
    return None if options.pop("disable", False) else options
