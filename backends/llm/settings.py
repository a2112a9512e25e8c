"""What a model's config says about its engine."""

import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidConfig, ModelFiles, Placement, parameter
from trivet.backends.formats.registry import THOUGHT_NAMES, TOOL_NAMES, nearest
from trivet.backends.hugging_face.image_bounds import MAX_ASPECT_RATIO, MAX_PIXELS, Bounds
from trivet.backends.llm.speculative_config import (
    SpeculativeConfig,
    read_speculative_config,
    without_model,
)
from trivet.protos.model_config_pb2 import ModelConfig

CHOICES = {
    "dtype": ("auto", "bfloat16", "float16", "float32"),
    "tool_call_parser": ("", *TOOL_NAMES),
    "generation_config": ("auto", "none"),
    "reasoning_parser": ("", *THOUGHT_NAMES),
    "quantization": ("", "fp8", "int8", "int4"),
    "kv_cache_dtype": ("auto", "fp8"),
    "attention": ("auto", "triton", "fa3", "varlen", "flashinfer", "torch"),
}
STEP_TOKENS = {"cpu": 512, "cuda": 8192}
"""So many that their products take longer than reading the weights, and not so many that those who
wait for their next token notice."""
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
MAX_IMAGES = 8
"""Of a conversation."""


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """All that the engine's process is told. Each field is a model parameter of that name, but
    `device_uuid`."""

    model_path: str
    """A Hugging Face folder or a GGUF file."""
    dtype: str = "auto"
    """"auto": bfloat16 where the device computes with it; else float32, on a GPU float16."""
    device: str = "auto"
    """cpu, cuda or cuda:N. "auto": where the instance group says, else a GPU if there is one."""
    block_size: int = 16
    """Tokens in a cache block."""
    kv_cache_bytes: int = 0
    """0: 1 GiB, or on a GPU all that `gpu_memory_utilization` leaves."""
    gpu_memory_utilization: float = 0.9
    """The share of the GPU's memory that weights, cache and steps may take, others' included."""
    max_model_len: int = 0
    """Prompt and output tokens together; 0: what the model was made for."""
    max_num_seqs: int = 256
    max_batched_tokens: int = 0
    """Tokens computed in one step; 0: 512, on a GPU 8192."""
    max_num_waiting: int = 1024
    prefix_caching: bool = True
    quantization: str = ""
    """fp8, int8 or int4: what the layers' matrices become at load. What a file has quantised stays
    as it is."""
    kv_cache_dtype: str = "auto"
    """fp8: twice the tokens in the same memory. "auto": what the model computes in."""
    tensor_parallel_size: int = 1
    """GPUs that compute each layer together, from the one of `device` on."""
    pipeline_parallel_size: int = 1
    """Stages that compute the model one after the other, some layers each, on
    `tensor_parallel_size` GPUs each."""
    attention: str = "auto"
    """The kernels on a GPU, by name; "auto": the fastest that is there."""
    cuda_graphs: bool = True
    """Whether decode steps are recorded."""
    num_threads: int = 0
    """0: one for each core."""
    max_loras: int = 8
    """Adapters that can be computed at once, each in a slot of the model's memory; 0: none at all.
    There may be more: they take turns."""
    max_lora_rank: int = 64
    """The largest rank that an adapter may have."""
    speculative_config: str = ""
    """How tokens are guessed that one step then tells together, as vLLM writes it; empty: none
    are."""
    speculative_model: str = ""
    """A smaller model in the version's folder that guesses them; as "model" in
    `speculative_config`."""
    max_logprobs: int = 20
    step_timeout_s: float = 120.0
    """A step that takes longer has hung: the engine is restarted."""
    heartbeat_timeout_s: float = 10.0
    """An engine that has not been heard for so long is restarted."""
    load_timeout_s: float = 600.0
    generation_config: str = "auto"
    """"auto": what the model's generation_config.json recommends is taken where a request of
    OpenAI's API does not say; "none": it is not."""
    tool_call_parser: str = ""
    """How the model writes calls of tools; empty: what its chat template contains decides."""
    reasoning_parser: str = ""
    """How it writes what it thinks, which is told as reasoning; empty: as with calls."""
    limit_mm_per_prompt: str = ""
    """How many images a conversation may have, as vLLM writes it: {"image": N}; empty: 8."""
    max_image_bytes: int = 16 << 20
    """Of one image's file."""
    max_pixels: int = MAX_PIXELS
    """Of one image, however small its file is."""
    max_aspect_ratio: int = MAX_ASPECT_RATIO
    in_process: bool = False
    """For debugging: the engine runs in a thread of the server."""
    device_uuid: str = ""
    """The GPU or MIG device that is the only one the engine's process sees; of the placement."""

    def step_tokens(self, device_type: str) -> int:
        """Tokens computed in one step on such a device."""
        return self.max_batched_tokens or STEP_TOKENS.get(device_type, STEP_TOKENS["cpu"])

    @property
    def num_ranks(self) -> int:
        """Processes that compute the model together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def speculative(self) -> SpeculativeConfig | None:
        """How tokens are guessed; None: none are."""
        return read_speculative_config(self.speculative_config, self.speculative_model)

    @property
    def image_bounds(self) -> Bounds:
        """What an image may be."""
        return Bounds(IMAGE_FORMATS, self.max_image_bytes, self.max_pixels, self.max_aspect_ratio)

    @property
    def max_images(self) -> int:
        """Of a conversation."""
        return image_limit(self.limit_mm_per_prompt)

    def to_json(self) -> dict[str, Any]:
        """For the engine's process."""
        return asdict(self)


def engine_settings(config: ModelConfig, files: ModelFiles) -> EngineSettings:
    """Reads the parameters. Raises InvalidConfig naming the parameter and its value."""
    given: dict[str, Any] = {}
    for name, default in asdict(EngineSettings("")).items():
        text = parameter(config, name)
        if text and name not in ("model_path", "device_uuid"):
            given[name] = _value(name, text, default)
    for name, choices in CHOICES.items():
        if name in given and given[name] not in choices:
            meant = nearest(given[name], choices)
            hint = f"; did you mean '{meant}'?" if meant else ""
            raise InvalidConfig(
                f"parameter '{name}' is '{given[name]}'; it must be one of "
                f"{', '.join(filter(None, choices))}{hint}"
            )
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if given.get(name, 1) < 1:
            raise InvalidConfig(f"parameter '{name}' is {given[name]}; it must be at least 1")
    if not DEVICE.fullmatch(given.get("device", "auto")):
        raise InvalidConfig(
            f"parameter 'device' is '{given['device']}'; it must be auto, cpu, cuda or cuda:N with "
            "the number of a GPU"
        )
    if not 0 < given.get("gpu_memory_utilization", 1) <= 1:
        raise InvalidConfig(
            f"parameter 'gpu_memory_utilization' is {given['gpu_memory_utilization']:g}; it must "
            "be more than 0 and at most 1"
        )
    image_limit(given.get("limit_mm_per_prompt", ""))
    speculative = read_speculative_config(
        given.get("speculative_config", ""), given.get("speculative_model", "")
    )
    if speculative is not None and given.get("pipeline_parallel_size", 1) > 1:
        raise InvalidConfig(
            f"parameter 'pipeline_parallel_size' is {given['pipeline_parallel_size']}, and "
            "'speculative_config' or 'speculative_model' has tokens guessed: of a model in stages "
            "none are, for steps are under way when the next one is planned; leave one of them out"
        )
    if speculative is not None and speculative.model:
        given["speculative_model"] = str(files.inside(files.version_dir, speculative.model))
        given["speculative_config"] = without_model(given.get("speculative_config", ""))
    return EngineSettings(str(find_model(config, files)), **given)


def image_limit(text: str) -> int:
    """How many images a conversation may have, of the parameter limit_mm_per_prompt. Raises
    InvalidConfig."""
    try:
        limits = json.loads(text or "{}")
    except ValueError:
        limits = None
    if not isinstance(limits, dict) or any(
        type(limit) is not int or limit < 0 or (limit and name != "image")
        for name, limit in limits.items()
    ):
        raise InvalidConfig(
            f"parameter 'limit_mm_per_prompt' is '{text}'; it must be as "
            f'{{"image": {MAX_IMAGES}}}: videos and sounds are not taken'
        )
    return int(limits.get("image", MAX_IMAGES))


def placed(settings: EngineSettings, placement: Placement) -> EngineSettings:
    """With the device that the instance group names, unless the parameter does. Raises
    InvalidConfig."""
    if placement.device_uuid:
        return _placed_by_uuid(settings, placement.device_uuid)
    if settings.device != "auto" or placement.kind not in ("KIND_CPU", "KIND_GPU"):
        return settings
    is_gpu = placement.kind == "KIND_GPU"
    return replace(settings, device=f"cuda:{placement.device_id}" if is_gpu else "cpu")


def _placed_by_uuid(settings: EngineSettings, uuid: str) -> EngineSettings:
    """On the one device that the engine's process then sees."""
    for name, is_wrong in (
        ("device", settings.device not in ("auto", "cuda", "cuda:0")),
        ("tensor_parallel_size", settings.tensor_parallel_size > 1),
        ("pipeline_parallel_size", settings.pipeline_parallel_size > 1),
        ("in_process", settings.in_process),
    ):
        if is_wrong:
            raise InvalidConfig(
                f"parameter 'gpu_uuids' names {uuid}, which the engine's process sees as its only "
                f"GPU, but parameter '{name}' is {getattr(settings, name)}: leave one of them out"
            )
    return replace(settings, device="cuda:0", device_uuid=uuid)


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
    """The weights: `model_path` or `default_model_filename` if given, a config.json or the only
    .gguf file of the version folder."""
    given = parameter(config, "model_path") or config.default_model_filename
    if given:
        return files.inside(files.version_dir, given)
    if (files.version_dir / "config.json").exists():
        return files.version_dir
    found = sorted(path for path in files.entries() if path.suffix == ".gguf")
    if len(found) != 1:
        raise InvalidConfig(
            f"version folder {files.version} has {len(found)} .gguf files and no config.json; give "
            "it one of them, or name the file in the parameter 'model_path'"
        )
    return found[0]
