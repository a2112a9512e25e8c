"""What a model's config says about its engine."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidConfig, ModelFiles, parameter
from trivet.protos.model_config_pb2 import ModelConfig

TOOL_CALL_PARSERS = ("", "hermes", "llama3_json", "mistral")
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All that the engine's process is told. Each field is a model parameter of that name."""

    model_path: str
    """A Hugging Face folder or a GGUF file."""
    dtype: str = "auto"
    """"auto": bfloat16 where the processor computes with it, else float32."""
    block_size: int = 16
    """Tokens in a cache block."""
    kv_cache_bytes: int = 1 << 30
    max_model_len: int = 0
    """Prompt and output tokens together; 0: what the model was made for."""
    max_num_seqs: int = 256
    max_batched_tokens: int = 512
    """Tokens computed in one step; 0: no limit."""
    max_num_waiting: int = 1024
    prefix_caching: bool = True
    num_threads: int = 0
    """0: one for each core."""
    max_logprobs: int = 20
    step_timeout_s: float = 120.0
    """A step that takes longer has hung: the engine is restarted."""
    load_timeout_s: float = 600.0
    tool_call_parser: str = ""
    """How the model writes calls of tools; empty: what its chat template contains decides."""
    in_process: bool = False
    """For debugging: the engine runs in a thread of the server."""

    def to_json(self) -> dict[str, Any]:
        """For the engine's process."""
        return asdict(self)


def engine_settings(config: ModelConfig, files: ModelFiles) -> EngineSettings:
    """Reads the parameters. Raises InvalidConfig naming the parameter and its value."""
    given: dict[str, Any] = {}
    for name, default in asdict(EngineSettings("")).items():
        text = parameter(config, name)
        if text and name != "model_path":
            given[name] = _value(name, text, default)
    for name, choices in (("dtype", DTYPES), ("tool_call_parser", TOOL_CALL_PARSERS)):
        if name in given and given[name] not in choices:
            raise InvalidConfig(
                f"parameter '{name}' is '{given[name]}'; it must be one of "
                f"{', '.join(filter(None, choices))}"
            )
    return EngineSettings(str(find_model(config, files)), **given)


def _value(name: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = type(default)(text)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}[type(default)]
        raise InvalidConfig(f"parameter '{name}' is '{text}'; it must be {kind}") from None
    if not isinstance(value, str) and value < 0:
        raise InvalidConfig(f"parameter '{name}' is {text}; it must not be negative")
    return value


def find_model(config: ModelConfig, files: ModelFiles) -> Path:
    """The weights: `model_path` if given, a .gguf file or a config.json in the version folder."""
    given = parameter(config, "model_path")
    if given:
        return files.inside(files.version_dir, given)
    if (files.version_dir / "config.json").exists():
        return files.version_dir
    found = sorted(files.version_dir.glob("*.gguf"))
    if len(found) != 1:
        raise InvalidConfig(
            f"version folder {files.version} has {len(found)} .gguf files and no config.json; give "
            "it one of them, or name the file in the parameter 'model_path'"
        )
    return found[0]
