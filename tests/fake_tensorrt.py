"""TensorRT's runtime on the twin of a GPU: plans are JSON behind a header, numpy computes.

As strict as the real one where it matters: addresses must be set and aligned, shapes must lie in
the current profile, and nothing is computed before the stream comes to it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from device_twin import TwinDevice, bytes_at

from trivet.backends.tensorrt.library import TensorRt

DTYPES = {"FLOAT": np.float32, "INT32": np.int32, "INT64": np.int64, "HALF": np.float16}
Function = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    INT64 = 8
    FP8 = 6


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class Strategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


FUNCTIONS: dict[str, Function] = {
    "double": lambda x: {"y": x["x"] * 2},
    "reshape": lambda x: {"y": x["x"].reshape(x["s"])},
    "nonzero": lambda x: {"y": x["x"][x["x"] != 0]},
}
SHAPES: dict[str, Callable[[Mapping[str, Any]], tuple[int, ...]]] = {
    "double": lambda dims: tuple(dims["x"]),
    "reshape": lambda dims: tuple(dims["s"]),
    "nonzero": lambda dims: (-1,),
}


def plan(
    function: str = "double",
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Mapping[str, Sequence[int]] | None = None,
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]] = (),
    shape_tensors: Sequence[str] = (),
    types: Mapping[str, str] | None = None,
    context_bytes: int = 0,
    version: bytes = bytes((10, 13, 0, 35)),
) -> bytes:
    """The bytes of a plan."""
    given = {
        "function": function,
        "inputs": inputs or {"x": (-1, 4)},
        "outputs": outputs or {"y": (-1, 4)},
        "profiles": profiles or [{"x": ((1, 4), (4, 4), (8, 4))}],
        "shape_tensors": shape_tensors,
        "types": dict(types or {}),
        "context_bytes": context_bytes,
    }
    return b"ftrt" + bytes(20) + version + json.dumps(given).encode()


class FakeContext:
    def __init__(self, engine: "FakeEngine") -> None:
        self.engine = engine
        self.profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert stream in self.engine.device.streams
        self.profile = profile
        return profile < len(self.engine.given["profiles"])

    def _allows(self, name: str, dims: Sequence[int]) -> bool:
        profile = self.engine.given["profiles"][self.profile]
        if name not in profile:
            return True
        low, _, high = profile[name]
        return len(dims) == len(low) and all(
            a <= d <= b for a, d, b in zip(low, dims, high, strict=True)
        )

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self.shapes[name] = tuple(shape)
        return self._allows(name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert self.engine.is_shape_inference_io(name) or address % 256 == 0, "misaligned"
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self.allocators[name] = allocator
        return True

    def _host_values(self, name: str) -> np.ndarray:
        (count,) = self.engine.given["inputs"][name]
        return bytes_at(self.addresses[name], count * 8).view(np.int64).copy()

    def infer_shapes(self) -> list[str]:
        names = self.engine.given["inputs"]
        return [n for n in names if n not in self.addresses]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims: dict[str, Any] = dict(self.shapes)
        for shape_tensor in self.engine.given["shape_tensors"]:
            dims[shape_tensor] = self._host_values(shape_tensor)
        return tuple(int(d) for d in SHAPES[self.engine.given["function"]](dims))

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        if engine.fails_with:
            engine.logger.log(Severity.ERROR, engine.fails_with)
            return False
        assert all(self._allows(n, s) for n, s in self.shapes.items())
        inputs, addresses, shapes = engine.given["inputs"], dict(self.addresses), dict(self.shapes)
        values = {n: self._host_values(n) for n in engine.given["shape_tensors"]}
        function = FUNCTIONS[engine.given["function"]]
        allocators = dict(self.allocators)

        def compute() -> None:
            read = dict(values)
            for name in inputs:
                if name not in read:
                    dtype = np.dtype(engine.numpy_type(name))
                    size = int(np.prod(shapes[name])) * dtype.itemsize
                    array = bytes_at(addresses[name], size).view(dtype)
                    read[name] = array.reshape(shapes[name])
            for name, result in function(read).items():
                made = np.ascontiguousarray(result)
                address = addresses.get(name, 0)
                if name in allocators:
                    address = allocators[name].reallocate_output_async(
                        name, address, made.nbytes, 256, stream
                    )
                    allocators[name].notify_shape(name, made.shape)
                if made.nbytes:
                    bytes_at(address, made.nbytes)[:] = made.view(np.uint8).ravel()
            engine.num_runs += 1

        if allocators:
            # The real one knows the size at this time, too, and asks on this thread.
            engine.device.streams[stream].run_all()
            compute()
        else:
            engine.device.streams[stream].give(compute)
        return True


class FakeEngine:
    def __init__(self, given: dict[str, Any], device: TwinDevice, logger: Any) -> None:
        self.given = given
        self.device = device
        self.logger = logger
        self.fails_with = ""
        self.num_runs = 0
        self.num_contexts = 0
        self.names = [*given["inputs"], *given["outputs"]]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(given["profiles"])
        self.device_memory_size_v2 = self.device_memory_size = given["context_bytes"]

    def get_tensor_name(self, index: int) -> str:
        return str(self.names[index])

    def get_tensor_dtype(self, name: str) -> DataType:
        default = "INT64" if name in self.given["shape_tensors"] else "FLOAT"
        return DataType[self.given["types"].get(name, default)]

    def numpy_type(self, name: str) -> Any:
        return DTYPES[self.get_tensor_dtype(name).name]

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        shape: Sequence[int] = {**self.given["inputs"], **self.given["outputs"]}[name]
        return shape

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.given["inputs"] else TensorIOMode.OUTPUT

    def is_shape_inference_io(self, name: str) -> bool:
        return name in self.given["shape_tensors"]

    def get_tensor_profile_shape(self, name: str, index: int) -> Any:
        fixed = self.given["inputs"][name]
        return self.given["profiles"][index].get(name, (fixed, fixed, fixed))

    def get_tensor_profile_values(self, index: int, name: str) -> Any:
        return self.given["profiles"][index][name]

    def create_execution_context(self, strategy: Strategy) -> FakeContext | None:
        assert isinstance(strategy, Strategy)
        needed = self.device_memory_size_v2 * (self.num_contexts + 1)
        if needed > self.device.total_bytes:
            self.logger.log(Severity.ERROR, "Requested amount of GPU memory could not be allocated")
            return None
        self.num_contexts += 1
        return FakeContext(self)


class FakeTensorRt:
    """The module, on one device; remembers its engines."""

    def __init__(self, device: TwinDevice) -> None:
        self.device = device
        self.engines: list[FakeEngine] = []
        self.host_code_allowed: list[bool] = []
        fake = self

        class Runtime:
            engine_host_code_allowed = False

            def __init__(self, logger: Any) -> None:
                self.logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
                fake.host_code_allowed.append(self.engine_host_code_allowed)
                if fake.refuses_with:
                    self.logger.log(Severity.ERROR, fake.refuses_with)
                    return None
                fake.engines.append(FakeEngine(json.loads(content[28:]), device, self.logger))
                return fake.engines[-1]

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = Severity(0), Severity(1), Severity(2)
            INFO, VERBOSE = Severity(3), Severity(4)

        class IOutputAllocator:
            pass

        self.refuses_with = ""
        module = SimpleNamespace(
            __name__="tensorrt", __version__="10.13.0.35", Runtime=Runtime, ILogger=ILogger,
            IOutputAllocator=IOutputAllocator, TensorIOMode=TensorIOMode, DataType=DataType,
            ExecutionContextAllocationStrategy=Strategy,
        )  # fmt: skip
        self.library = TensorRt(module)


def write_plan(root: Path, content: bytes, config: str = "", name: str = "model.plan") -> Path:
    """A model folder with a plan; returns it."""
    folder = root / "engine"
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "1" / name).write_bytes(content)
    (folder / "config.pbtxt").write_text(config)
    return folder
