"""An engine in a GPU's memory, which all instances there share, and the contexts made of it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from trivet.backends.api import InvalidConfig, LoadFailed, parameter
from trivet.backends.device.buckets import Bucket
from trivet.backends.device.lane import Lane
from trivet.backends.tensorrt.context import EngineContext
from trivet.backends.tensorrt.description import Description
from trivet.backends.tensorrt.library import TensorRt, first_reason
from trivet.backends.tensorrt.plan_file import OpenPlan
from trivet.protos.model_config_pb2 import ModelConfig

_STRATEGIES = ("STATIC", "ON_PROFILE_CHANGE")


class SharedEngine:
    """TensorRT's engine; its weights lie on the GPU once, however many contexts there are."""

    def __init__(self, plan: OpenPlan, description: Description) -> None:
        self._plan = plan
        self.engine = plan.engine
        self.description = description


_Key = tuple[Path, tuple[int, int, int], int, bool]


class Engines:
    """Engines in use, held weakly: one lives as long as an instance has it."""

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[_Key, SharedEngine] = WeakValueDictionary()
        self._lock = threading.Lock()

    def get(
        self, plan: Path, gpu_number: int, *, runs_host_code: bool,
        make: Callable[[], SharedEngine],
    ) -> SharedEngine:  # fmt: skip
        """The engine of a file on a GPU, made if need be. A file replaced in place is another."""
        state = plan.stat()
        file = (state.st_ino, state.st_size, state.st_mtime_ns)
        key = (plan, file, gpu_number, runs_host_code)
        # Two instances that load at a time must not both take the memory.
        with self._lock:
            found = self._shared.get(key)
            if found is None:
                found = self._shared[key] = make()
            return found


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """What an instance computes with."""

    library: TensorRt
    shared: SharedEngine
    profiles: Sequence[int]
    """Those that the instance group allows."""
    buckets: Sequence[Bucket]
    """Of CUDA graphs that are captured here; TensorRT-RTX captures by itself."""
    strategy: str
    uses_own_graphs: bool = False
    """Whether TensorRT-RTX is to capture CUDA graphs."""

    @property
    def description(self) -> Description:
        """Of the engine."""
        return self.shared.description

    def context(self, profile: int, lane: Lane) -> EngineContext:
        """A context with a profile set. Raises LoadFailed where the GPU has no memory for it."""
        with self.library.listening() as errors:
            context = self._make_context()
            reason = first_reason(errors)
        if context is None:
            mib = self.description.device_bytes >> 20
            free = lane.gpu.free_bytes()
            raise LoadFailed(
                f"no execution context could be made ({reason}): it needs {mib} MiB, and "
                f"{free.free >> 20} of the GPU's {free.total >> 20} MiB are free; lower the number "
                "of instances or profiles, set the parameter execution_context_allocation_strategy "
                "to ON_PROFILE_CHANGE, or place the model on another GPU"
            )
        if len(self.description.profiles) > 1 and not context.set_optimization_profile_async(
            profile, lane.stream.handle
        ):
            raise LoadFailed(f"optimisation profile {profile} cannot be used: {reason}")
        return EngineContext(self.library, context, profile, self.description, lane)

    def _make_context(self) -> Any:
        trt, engine = self.library.trt, self.shared.engine
        strategy = getattr(trt.ExecutionContextAllocationStrategy, self.strategy)
        if not self.uses_own_graphs:
            return engine.create_execution_context(strategy)
        settings = engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(strategy)
        settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return engine.create_execution_context(settings)


def strategy_of(config: ModelConfig) -> str:
    """The config's execution_context_allocation_strategy. Raises InvalidConfig."""
    name = "execution_context_allocation_strategy"
    value = parameter(config, name) or _STRATEGIES[0]
    if value not in _STRATEGIES:
        raise InvalidConfig(
            f"model '{config.name}': parameter {name} is '{value}', but must be one of "
            f"{', '.join(_STRATEGIES)}"
        )
    return value
