"""Turns a config into the options and execution providers of an ONNX Runtime session. Pure.

Thread count. Instances on the CPU share one session and with it one thread pool, in which every
calling thread takes part: n callers and a pool of t threads keep n + t - 1 cores busy, so t is
chosen to use the cores once. With a full pool for each of two callers on two cores, the p99 of a
small MLP was 4.4 ms instead of 0.5 ms, at 20 % less throughput.

Spinning stays on, ONNX Runtime's default: without it a lone request to the same MLP took 330 us
instead of 190 us on two threads (with pauses between requests 390 instead of 220, though for a
fifth of the CPU time). `session.intra_op.allow_spinning` as a model parameter turns it off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime as ort

from trivet.backends.api import InvalidConfig, LoadFailed, ModelFiles, Placement
from trivet.backends.onnxruntime.about import CUDA_PARAMETERS, SHRINKAGE
from trivet.protos.model_config_pb2 import ModelConfig, ModelInstanceGroup

Pairs = tuple[tuple[str, str], ...]

_LEVELS = {-1: "ORT_ENABLE_BASIC", 0: "ORT_ENABLE_ALL", 1: "ORT_ENABLE_EXTENDED"}
"""`optimization.graph.level`."""

_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
_NUMBERED = {
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
}
"""Options that Triton's configs write as numbers."""
_TENSORRT_PARAMETERS = {
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
    "max_workspace_size_bytes": "trt_max_workspace_size",
}


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """All that a session is made from, besides the file; equal plans make equal sessions."""

    intra_op_threads: int
    inter_op_threads: int
    is_parallel: bool
    level: str
    use_arena: bool
    use_pattern: bool
    entries: Pairs
    providers: tuple[tuple[str, Pairs], ...]
    libraries: tuple[str, ...]
    shrinkage: str
    """Devices whose arena is shrunk after each run: "cpu:0"."""

    @property
    def is_shareable(self) -> bool:
        """Whether instances may run on one session: on a GPU each needs streams of its own."""
        return [name for name, _ in self.providers] == [_CPU]

    def on_stream(self, handle: int, *, captures: bool) -> "SessionPlan":
        """The same for an instance that computes on a stream of its own; with CUDA graphs."""
        more = {"user_compute_stream": str(handle)}
        graphs = {"enable_cuda_graph": "1"} if captures else {}
        names = {_CUDA: more | graphs, _TENSORRT: _for_tensorrt(more | graphs)}
        providers = tuple(
            (name, _pairs({**dict(pairs), **names.get(name, {})})) for name, pairs in self.providers
        )
        return replace(self, providers=providers)

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on an NVIDIA GPU."""
        return any(name in (_CUDA, _TENSORRT) for name, _ in self.providers)

    def options(self) -> ort.SessionOptions:
        """Raises an ONNX Runtime error for a custom operator library that does not load."""
        options = ort.SessionOptions()
        options.log_severity_level = 3  # errors; they are written to stderr past our log
        options.intra_op_num_threads = self.intra_op_threads
        options.inter_op_num_threads = self.inter_op_threads
        options.enable_cpu_mem_arena = self.use_arena
        options.enable_mem_pattern = self.use_pattern
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, self.level)
        if self.is_parallel:
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        for key, value in self.entries:
            options.add_session_config_entry(key, value)
        for library in self.libraries:
            options.register_custom_ops_library(library)
        return options

    def run_options(self) -> ort.RunOptions | None:
        """Options of each run; None when there are none, which is faster."""
        if not self.shrinkage:
            return None
        options = ort.RunOptions()
        options.add_run_config_entry(SHRINKAGE, self.shrinkage)
        return options


def plan_session(config: ModelConfig, files: ModelFiles, placement: Placement) -> SessionPlan:
    """Raises InvalidConfig for a bad value, LoadFailed for a provider that is not installed."""
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    libraries = config.model_operations.op_library_filename
    return SessionPlan(
        intra_op_threads=_integer(
            config, parameters, "intra_op_thread_count", _pool_size(config, placement)
        ),
        inter_op_threads=_integer(config, parameters, "inter_op_thread_count", 0),
        is_parallel=_integer(config, parameters, "execution_mode", 0) == 1,
        level=_LEVELS.get(config.optimization.graph.level, "ORT_ENABLE_ALL"),
        use_arena=_integer(config, parameters, "enable_mem_arena", 1) != 0,
        use_pattern=_integer(config, parameters, "enable_mem_pattern", 1) != 0,
        entries=tuple(sorted(p for p in parameters.items() if p[0].startswith("session."))),
        providers=_providers(config, parameters, placement),
        libraries=tuple(str(_library(files, name)) for name in libraries),
        shrinkage=parameters.get(SHRINKAGE, ""),
    )


def _pool_size(config: ModelConfig, placement: Placement) -> int:
    """Threads of the session's pool: see the module's docstring."""
    groups = [g for g in config.instance_group if g.kind != ModelInstanceGroup.KIND_GPU]
    num_callers = max(1, sum(max(1, group.count) for group in groups))
    return num_callers * (max(1, placement.cpu_threads) - 1) + 1


def _library(files: ModelFiles, name: str) -> Path:
    in_version = (files.version_dir / name).exists()
    return files.inside(files.version_dir if in_version else files.model_dir, name)


def _integer(config: ModelConfig, parameters: Mapping[str, str], name: str, default: int) -> int:
    text = parameters.get(name) or str(default)
    if not text.isascii() or not text.isdigit():
        raise InvalidConfig(
            f"model '{config.name}': parameter '{name}' must be a whole number from 0, got '{text}'"
        )
    return int(text)


def _providers(
    config: ModelConfig, parameters: Mapping[str, str], placement: Placement
) -> tuple[tuple[str, Pairs], ...]:
    """Providers in order of preference: the accelerators asked for, CUDA on a GPU, the CPU last."""
    accelerators = config.optimization.execution_accelerators
    is_gpu = placement.kind == "KIND_GPU"
    asked = (
        accelerators.gpu_execution_accelerator if is_gpu else accelerators.cpu_execution_accelerator
    )
    device = {"device_id": str(placement.device_id)} if is_gpu else {}
    chosen: dict[str, Pairs] = {}
    for accelerator in asked:
        provider = _provider(config, accelerator.name)
        given = {_renamed(k): v for k, v in accelerator.parameters.items() if k != "precision_mode"}
        precision = _precision(config, accelerator.parameters.get("precision_mode", ""))
        chosen[provider] = _pairs({**device, **_named(config, given), **precision})
    if is_gpu:
        # What the accelerator's own parameters do not say, those of the model do.
        common = {key: parameters[key] for key in CUDA_PARAMETERS if key in parameters}
        stated = dict(chosen.get(_CUDA, ()))
        chosen[_CUDA] = _pairs({**device, **_named(config, common), **stated})
    _check_available(config, chosen)
    return (*chosen.items(), (_CPU, ()))


def _provider(config: ModelConfig, name: str) -> str:
    provider = _PROVIDERS.get(name.lower())
    if provider is None:
        raise InvalidConfig(
            f"model '{config.name}': unknown execution accelerator '{name}'; ONNX Runtime has "
            f"{sorted(_PROVIDERS)}"
        )
    return provider


def _renamed(key: str) -> str:
    return _TENSORRT_PARAMETERS.get(key, key)


def _precision(config: ModelConfig, mode: str) -> dict[str, str]:
    names = {"FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}
    if mode and mode.upper() not in ("FP32", *names):
        raise InvalidConfig(
            f"model '{config.name}': precision_mode is '{mode}', but must be one of "
            f"{['FP32', *names]}"
        )
    return {names[mode.upper()]: "True"} if mode.upper() in names else {}


def _named(config: ModelConfig, options: Mapping[str, str]) -> dict[str, str]:
    """The options with ONNX Runtime's words for Triton's numbers."""
    named = dict(options)
    for key, words in _NUMBERED.items():
        given = options.get(key)
        if given is None or given in words:
            continue
        if not given.isdecimal() or int(given) >= len(words):
            numbered = ", ".join(f"{number} ({word})" for number, word in enumerate(words))
            raise InvalidConfig(
                f"model '{config.name}': {key} is '{given}', but must be one of {numbered}"
            )
        named[key] = words[int(given)]
    return named


def _for_tensorrt(options: Mapping[str, str]) -> dict[str, str]:
    """Its own name for CUDA graphs; the stream's is the same."""
    names = {"enable_cuda_graph": "trt_cuda_graph_enable"}
    return {names.get(key, key): value for key, value in options.items()}


def _pairs(options: Mapping[str, str]) -> Pairs:
    return tuple(sorted(options.items()))


def _check_available(config: ModelConfig, chosen: Sequence[str] | Mapping[str, Pairs]) -> None:
    missing = [name for name in chosen if name not in ort.get_available_providers()]
    if missing:
        raise LoadFailed(
            f"model '{config.name}' needs {missing}, but this ONNX Runtime has only "
            f"{ort.get_available_providers()}; for NVIDIA GPUs: pip install trivet[onnx-gpu]"
        )
