"""What an engine takes, gives and is made for: read from it, or from the note beside its file.

The note (`model.plan.json`, written by `trivet build-engine`) says it without a GPU, which opening
an engine needs.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from trivet.backends.api import DataType, InvalidConfig, LoadFailed, Shape
from trivet.backends.api.datatype import BY_NAME
from trivet.backends.tensorrt.library import TensorRt

NOTE_SUFFIX = ".json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class EngineTensor:
    """One input or output; -1 is a variable dimension."""

    name: str
    datatype: DataType
    shape: Shape
    is_shape_tensor: bool = False
    """Its values are shapes: TensorRT reads or writes them on the host."""


@dataclass(frozen=True, slots=True)
class Range:
    """What a profile allows for one input: its shape, or the values of a shape tensor."""

    low: Shape
    best: Shape
    high: Shape

    def holds(self, dims: Shape) -> bool:
        """Whether a shape (or values) is allowed."""
        if len(dims) != len(self.low):
            return False
        return all(a <= d <= b for a, d, b in zip(self.low, dims, self.high, strict=True))

    def __str__(self) -> str:
        return f"{list(self.low)} to {list(self.high)}"


Profile = Mapping[str, Range]


@dataclass(frozen=True, slots=True)
class Description:
    """Of one engine."""

    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    profiles: tuple[Profile, ...]
    device_bytes: int = 0
    """Memory that one execution context takes; 0: unknown."""
    made_by: str = ""
    """TensorRT and its version; only in a note."""
    compute_capabilities: tuple[str, ...] = field(default=())
    """"8.9"; empty: unknown, or whatever GPU it was built on."""

    def to_json(self) -> str:
        """The note's text."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, default=_json_value)

    @classmethod
    def read(cls, plan: Path) -> Self | None:
        """The note beside a plan; None without one. Raises LoadFailed for one that is damaged."""
        path = note_of(plan)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return cls._parse(json.loads(text))
        except (KeyError, TypeError, ValueError) as error:
            raise LoadFailed(
                f"'{path.name}' beside '{plan.name}' is damaged ({error}); delete it, or build the "
                "engine again with trivet build-engine"
            ) from error

    @classmethod
    def _parse(cls, given: Mapping[str, Any]) -> Self:
        if given["format"] != _FORMAT:
            raise ValueError(f"format {given['format']} is not known")
        return cls(
            tuple(map(_tensor, given["inputs"])),
            tuple(map(_tensor, given["outputs"])),
            tuple({name: _range(r) for name, r in p.items()} for p in given["profiles"]),
            int(given["device_bytes"]),
            str(given["made_by"]),
            tuple(map(str, given["compute_capabilities"])),
        )

    @classmethod
    def of_engine(cls, library: TensorRt, engine: Any) -> Self:
        """Raises InvalidConfig for tensors of types that have no datatype."""
        trt = library.trt
        inputs: list[EngineTensor] = []
        outputs: list[EngineTensor] = []
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            datatype = library.datatype(engine.get_tensor_dtype(name))
            if datatype is None:
                raise refuse_type(name, engine.get_tensor_dtype(name).name)
            tensor = EngineTensor(
                name,
                datatype,
                tuple(engine.get_tensor_shape(name)),
                bool(engine.is_shape_inference_io(name)),
            )
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(tensor)
        profiles = tuple(
            {tensor.name: _profile_range(engine, index, tensor) for tensor in inputs}
            for index in range(engine.num_optimization_profiles)
        )
        return cls(tuple(inputs), tuple(outputs), profiles, _device_bytes(engine))


def note_of(plan: Path) -> Path:
    """Where a plan's note lies."""
    return plan.with_name(plan.name + NOTE_SUFFIX)


def refuse_type(name: str, type_name: str) -> InvalidConfig:
    """The error for a tensor of a type that clients cannot send."""
    return InvalidConfig(
        f"tensor '{name}' of the engine has TensorRT type {type_name}, of which requests have no "
        "tensors; cast it inside the model to FP32, FP16, BF16, INT8, INT32, INT64, UINT8 or BOOL"
    )


def _profile_range(engine: Any, index: int, tensor: EngineTensor) -> Range:
    if tensor.is_shape_tensor:
        try:
            values = engine.get_tensor_profile_values(index, tensor.name)
        except TypeError:  # the documents have the other order
            values = engine.get_tensor_profile_values(tensor.name, index)
        return Range(*(tuple(int(v) for v in each) for each in values))
    shapes: Sequence[Any] = engine.get_tensor_profile_shape(tensor.name, index)
    return Range(*(tuple(shape) for shape in shapes))


def _device_bytes(engine: Any) -> int:
    # The older name is for TensorRT before 10.1.
    return int(getattr(engine, "device_memory_size_v2", None) or engine.device_memory_size)


def _json_value(value: object) -> object:
    assert isinstance(value, DataType), "all else is plain"
    return value.value


def _tensor(given: Mapping[str, Any]) -> EngineTensor:
    return EngineTensor(
        str(given["name"]),
        BY_NAME[given["datatype"]],
        tuple(map(int, given["shape"])),
        bool(given["is_shape_tensor"]),
    )


def _range(given: Mapping[str, Any]) -> Range:
    return Range(*(tuple(map(int, given[key])) for key in ("low", "best", "high")))
