"""What `trivet build-engine` is asked for: read from a TOML file and flags, checked. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from trivet.backends.api import InvalidConfig, Shape
from trivet.backends.tensorrt.description import EngineTensor, Profile, Range

_KEYS = ("min", "opt", "max")
MAX_LEVEL = 5


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Of one engine."""

    profiles: Sequence[Mapping[str, Any]] = ()
    """For each, by input: min, opt and max of its shape, or of the values of a shape tensor."""
    max_batch_size: int = 0
    """Profiles for models of which only the batch is variable; 0: as many as `profiles` say."""
    fp16: bool = False
    bf16: bool = False
    workspace_bytes: int = 0
    """0: TensorRT's default, all of the GPU."""
    optimization_level: int = -1
    """0 to 5: how long to look for faster kernels; -1: TensorRT's default."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    compute_capabilities: Sequence[str] = ()
    """TensorRT-RTX: the GPUs to build for, "8.9"; empty: any that it knows."""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Self:
        """Raises InvalidConfig for an unknown key or a wrong type."""
        known = {each.name: each for each in fields(cls)}
        for key, value in given.items():
            if key not in known:
                raise InvalidConfig(
                    f"unknown build setting '{key}'; there are {', '.join(sorted(known))}"
                )
            default = known[key].default
            kind = list if isinstance(default, tuple) else type(default)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise InvalidConfig(f"build setting '{key}' must be a {kind.__name__}: {value!r}")
        settings = cls(**given)
        if settings.max_batch_size < 0 or settings.optimization_level > MAX_LEVEL:
            raise InvalidConfig(
                "max_batch_size must be 0 or more, and optimization_level at most "
                f"{MAX_LEVEL}: got {settings.max_batch_size} and {settings.optimization_level}"
            )
        return settings


def plan_profiles(settings: BuildSettings, inputs: Sequence[EngineTensor]) -> list[Profile]:
    """The profiles of an engine with these inputs. Raises InvalidConfig."""
    if settings.profiles:
        return [_profile(number, given, inputs) for number, given in enumerate(settings.profiles)]
    variable = [tensor for tensor in inputs if -1 in tensor.shape or tensor.is_shape_tensor]
    if not variable:
        return []
    for tensor in variable:
        if tensor.is_shape_tensor or -1 in tensor.shape[1:] or not settings.max_batch_size:
            raise InvalidConfig(
                f"input '{tensor.name}' has shape {list(tensor.shape)}"
                f"{' and is a shape tensor' if tensor.is_shape_tensor else ''}: say what to build "
                "for with a profile, --profile NAME=MIN:OPT:MAX or [[profiles]] in the --config "
                "file; where only the batch is variable, --max-batch-size is enough"
            )
    most = settings.max_batch_size
    return [
        {t.name: _fixed(t.shape) if t not in variable else _batches(t.shape, most) for t in inputs}
    ]


def _batches(shape: Shape, most: int) -> Range:
    rest = shape[1:]
    return Range((1, *rest), (max(1, most // 2), *rest), (most, *rest))


def _fixed(shape: Shape) -> Range:
    return Range(shape, shape, shape)


def _profile(number: int, given: Mapping[str, Any], inputs: Sequence[EngineTensor]) -> Profile:
    where = f"profile {number}"
    by_name = {tensor.name: tensor for tensor in inputs}
    for name in given:
        if name not in by_name:
            raise InvalidConfig(f"{where} has input '{name}'; the model's are {sorted(by_name)}")
    profile: dict[str, Range] = {}
    for name, tensor in by_name.items():
        if name in given:
            profile[name] = _range(f"{where}: input '{name}'", given[name], tensor)
        elif -1 in tensor.shape or tensor.is_shape_tensor:
            raise InvalidConfig(
                f"{where} lacks input '{name}', whose shape is {list(tensor.shape)}"
            )
        else:
            profile[name] = _fixed(tensor.shape)
    return profile


def _range(where: str, given: Any, tensor: EngineTensor) -> Range:
    try:
        low, best, high = (tuple(int(dim) for dim in given[key]) for key in _KEYS)
    except (KeyError, TypeError, ValueError):
        raise InvalidConfig(f"{where}: give min, opt and max as lists of numbers") from None
    rank = tensor.shape[0] if tensor.is_shape_tensor and tensor.shape else len(tensor.shape)
    if not len(low) == len(best) == len(high) == rank:
        what = "values" if tensor.is_shape_tensor else "dimensions"
        raise InvalidConfig(f"{where}: min, opt and max need {rank} {what} each")
    if any(not a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
        raise InvalidConfig(
            f"{where}: min <= opt <= max must hold: {list(low)}, {list(best)}, {list(high)}"
        )
    fixed = () if tensor.is_shape_tensor else tensor.shape
    for axis, dim in enumerate(fixed):
        if dim != -1 and not low[axis] == high[axis] == dim:
            raise InvalidConfig(
                f"{where}: dimension {axis} is {dim} in the model, the profile has {low[axis]} to "
                f"{high[axis]}"
            )
    return Range(low, best, high)
