"""Opens TensorRT engines."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trivet.backends.api import (
    DeviceLost,
    InvalidConfig,
    LoadFailed,
    ModelFiles,
    Placement,
    parameter,
)
from trivet.backends.device.cuda import open_gpu
from trivet.backends.device.driver import Gpu
from trivet.backends.device.errors import DeviceFailed, as_load_failure
from trivet.backends.device.gpus import new_lane
from trivet.backends.tensorrt.about import ABOUT
from trivet.backends.tensorrt.description import Description, note_of
from trivet.backends.tensorrt.graphs import engine_buckets
from trivet.backends.tensorrt.instance import TensorRtInstance
from trivet.backends.tensorrt.library import TensorRt, load_tensorrt
from trivet.backends.tensorrt.opened import Engines, OpenedEngine, SharedEngine, strategy_of
from trivet.backends.tensorrt.plan_file import check_plan, open_engine, require_header
from trivet.backends.tensorrt.profiles import chosen_profiles, complete_from_engine
from trivet.protos.model_config_pb2 import ModelConfig

DEFAULT_FILENAME = ABOUT.model_files[0]


class TensorRtBackend:
    """`backend: "tensorrt"` (or `platform: "tensorrt_plan"`): model.plan, made for the GPU here."""

    def __init__(
        self,
        load: Callable[[], TensorRt] = load_tensorrt,
        gpu_of: Callable[[int], Gpu] = open_gpu,
    ) -> None:
        self._load = load
        self._gpu_of = gpu_of
        self._engines = Engines()

    def can_use_gpus(self) -> bool:
        return True

    def complete(self, config: ModelConfig, files: ModelFiles) -> ModelConfig:
        """From the note beside the plan, else from the engine, which needs the GPU.

        Raises InvalidConfig, LoadFailed.
        """
        number = _first_gpu(config)
        plan = self._plan(config, files, number)
        require_header(plan)
        note = Description.read(plan)
        if note is None and parameter(config, "gpu_uuids"):
            raise InvalidConfig(
                f"model '{config.name}': this process does not see the devices of parameter "
                f"gpu_uuids, so '{plan.name}' needs its note, {note_of(plan).name}, which "
                "trivet build-engine writes"
            )
        if note is None:
            note = self._shared(config, plan, self._gpu(config, number, plan)).description
        return complete_from_engine(config, note)

    def check_files(self, config: ModelConfig, files: ModelFiles) -> None:
        """What the notes beside the plans say, without a GPU. Raises InvalidConfig, LoadFailed."""
        default = config.default_model_filename or DEFAULT_FILENAME
        for name in sorted({default, *config.cc_model_filenames.values()}):
            if not (files.version_dir / name).exists():
                continue
            plan = files.inside(files.version_dir, name)
            require_header(plan)
            note = Description.read(plan)
            if note is None:
                continue
            complete_from_engine(config, note)
            for group in config.instance_group:
                chosen_profiles(config.name, group.profile, len(note.profiles))

    def open(
        self, config: ModelConfig, files: ModelFiles, placement: Placement
    ) -> TensorRtInstance:
        """Raises LoadFailed, InvalidConfig."""
        if placement.kind != "KIND_GPU":
            raise LoadFailed(
                f"model '{config.name}': TensorRT computes on GPUs only, but instance "
                f"'{placement.name}' is placed as {placement.kind}; set the kind of "
                "instance_group to KIND_GPU. (KIND_AUTO means the CPU where no GPU is found.)"
            )
        gpu = self._gpu(config, placement.device_id)
        try:
            plan = self._plan(config, files, placement.device_id)
            shared = self._shared(config, plan, gpu)
            # Without auto-completion nobody has compared the config with the engine yet.
            complete_from_engine(config, shared.description)
            opened = self._opened(config, placement, shared)
            return TensorRtInstance(
                opened, new_lane(gpu, config), batching=config.max_batch_size > 0
            )
        except (DeviceFailed, DeviceLost) as error:
            raise as_load_failure(config.name, error) from error

    def build(self, onnx: Path, plan: Path, settings: Mapping[str, Any]) -> str:
        """Makes a plan from an ONNX model; says what was made. See BuildsEngines."""
        from trivet.backends.tensorrt.build import build_plan

        try:
            capability = _capability(self._gpu_of(0)) or ""
        except LoadFailed:
            capability = ""  # TensorRT-RTX builds without a GPU
        return build_plan(self._load(), onnx, plan, settings, capability)

    def _opened(
        self, config: ModelConfig, placement: Placement, shared: SharedEngine
    ) -> OpenedEngine:
        library, description = self._load(), shared.description
        graphs = config.optimization.cuda.graphs
        captures = graphs and not hasattr(library.trt, "CudaGraphStrategy")
        return OpenedEngine(
            library,
            shared,
            chosen_profiles(config.name, placement.profiles, len(description.profiles)),
            engine_buckets(config, description) if captures else [],
            strategy_of(config),
            uses_own_graphs=graphs and not captures,
        )

    def _shared(self, config: ModelConfig, plan: Path, gpu: Gpu) -> SharedEngine:
        library = self._load()
        runs_host_code = parameter(config, "version_compatible").lower() in ("true", "1")

        def make() -> SharedEngine:
            check_plan(library, plan, Description.read(plan), _capability(gpu))
            gpu.activate()
            opened = open_engine(library, plan, runs_host_code=runs_host_code)
            return SharedEngine(opened, Description.of_engine(library, opened.engine))

        return self._engines.get(plan, gpu.number, runs_host_code=runs_host_code, make=make)

    def _gpu(self, config: ModelConfig, number: int, plan: Path | None = None) -> Gpu:
        try:
            return self._gpu_of(number)
        except LoadFailed as error:
            told = error.message
            if plan is not None:
                told = (
                    f"'{plan.name}' is an engine of TensorRT, for a GPU: {told}; without a "
                    "GPU serve the ONNX model that it was made of"
                )
            raise LoadFailed(f"model '{config.name}': {told}") from error

    def _plan(self, config: ModelConfig, files: ModelFiles, gpu_number: int) -> Path:
        """The file for the GPU: by compute capability where cc_model_filenames has it."""
        if not config.cc_model_filenames:
            return files.artifact(config, DEFAULT_FILENAME)
        capability = _capability(self._gpu(config, gpu_number))
        name = config.cc_model_filenames.get(capability or "")
        if name:
            return files.inside(files.version_dir, name)
        if (files.version_dir / (config.default_model_filename or DEFAULT_FILENAME)).exists():
            return files.artifact(config, DEFAULT_FILENAME)
        raise InvalidConfig(
            f"model '{config.name}': cc_model_filenames has files for compute capability "
            f"{', '.join(sorted(config.cc_model_filenames))}, but GPU {gpu_number} has "
            f"{capability}; build the engine for it (trivet build-engine)"
        )


def _first_gpu(config: ModelConfig) -> int:
    return next((gpu for group in config.instance_group for gpu in group.gpus), 0)


def _capability(gpu: Gpu) -> str | None:
    """ "9.0"; None where it is not known."""
    found: tuple[int, int] | None = getattr(gpu, "compute_capability", None)
    return None if found is None else f"{found[0]}.{found[1]}"


BACKEND = TensorRtBackend()
