"""Which optimisation profile computes a batch, and what an engine says for a config. Pure."""

from collections.abc import Callable, Mapping, Sequence

from trivet.backends.api import InvalidConfig, InvalidRequest, Shape
from trivet.backends.api.completion import ModelTensor, complete_config
from trivet.backends.tensorrt.description import Description, EngineTensor, Profile
from trivet.protos.model_config_pb2 import ModelConfig


def chosen_profiles(model_name: str, names: Sequence[str], num_profiles: int) -> tuple[int, ...]:
    """The numbers of the profiles that an instance group names; all if it names none.

    Raises InvalidConfig.
    """
    for name in names:
        if not name.isdecimal() or int(name) >= num_profiles:
            raise InvalidConfig(
                f"model '{model_name}': instance_group.profile is '{name}', but the engine has "
                f"{num_profiles} optimisation profiles, numbered from 0"
            )
    return tuple(int(name) for name in names) or tuple(range(num_profiles))


def choose_profile(
    profiles: Sequence[Profile], allowed: Sequence[int], dims: Mapping[str, Shape]
) -> int:
    """The profile whose best shapes are nearest, out of those that hold the inputs' shapes.

    `dims` has a shape tensor's values. Raises InvalidRequest where none does.
    """
    fitting = holding(profiles, allowed, dims)
    if not fitting:
        shown = "; ".join(
            f"profile {number}: " + ", ".join(f"{n} {profiles[number][n]}" for n in dims)
            for number in allowed
        )
        asked = ", ".join(f"{name} {list(shape)}" for name, shape in dims.items())
        raise InvalidRequest(
            f"the engine was not built for {asked}; it takes {shown}. Build it with a profile for "
            "these shapes (trivet build-engine)"
        )
    return min(fitting, key=lambda number: _distance(profiles[number], dims))


def holding(
    profiles: Sequence[Profile], allowed: Sequence[int], dims: Mapping[str, Shape]
) -> list[int]:
    """The profiles that hold the inputs' shapes."""
    return [
        number for number in allowed if all(profiles[number][n].holds(d) for n, d in dims.items())
    ]


def runs_of(sizes: Sequence[int], fits: Callable[[int], bool]) -> list[range]:
    """Requests of these sizes in runs that the engine computes, in order and each as long as can
    be. One that does not even fit by itself is a run of its own."""
    runs: list[range] = []
    start = 0
    while start < len(sizes):
        stop, size = start + 1, 0
        for index in range(start, len(sizes)):
            size += sizes[index]
            if fits(size):
                stop = index + 1
        runs.append(range(start, stop))
        start = stop
    return runs


def _distance(profile: Profile, dims: Mapping[str, Shape]) -> int:
    return sum(
        abs(have - best)
        for name, shape in dims.items()
        for have, best in zip(shape, profile[name].best, strict=True)
    )


def complete_from_engine(config: ModelConfig, engine: Description) -> ModelConfig:
    """The config with what the engine says; the largest batch is what its profiles allow.

    Raises InvalidConfig.
    """
    batching = config.max_batch_size > 0 or (_can_batch(engine) and not config.input)
    inputs = [_model_tensor(config, tensor, batching=batching) for tensor in engine.inputs]
    for tensor in engine.outputs:
        if tensor.is_shape_tensor and batching:
            raise _shape_tensor_refused(config, tensor)
    outputs = [ModelTensor(t.name, t.datatype, t.shape) for t in engine.outputs]
    completed = complete_config(config, inputs, outputs)
    most = largest_batch(engine)
    if config.max_batch_size == 0 and completed.max_batch_size > 0:
        completed.max_batch_size = most
    if completed.max_batch_size > most > 0:
        raise InvalidConfig(
            f"model '{config.name}': max_batch_size is {completed.max_batch_size}, but the "
            f"engine's profiles take batches of up to {most}; lower it, or build the engine with a "
            "larger profile"
        )
    for tensor in engine.inputs:
        for given in completed.input:
            if given.name == tensor.name and tensor.is_shape_tensor:
                given.is_shape_tensor = True
    return completed


def largest_batch(engine: Description) -> int:
    """The largest first dimension that some profile has for all inputs; 0: there is none."""
    shaped = [tensor.name for tensor in engine.inputs if not tensor.is_shape_tensor]
    return max(
        (min((p[name].high[0] for name in shaped if p[name].high), default=0)
         for p in engine.profiles),
        default=0,
    )  # fmt: skip


def _can_batch(engine: Description) -> bool:
    shaped = [t for t in (*engine.inputs, *engine.outputs) if not t.is_shape_tensor]
    if not shaped or any(not tensor.shape or tensor.shape[0] != -1 for tensor in shaped):
        return False
    return not any(tensor.is_shape_tensor for tensor in engine.outputs)


def _model_tensor(config: ModelConfig, tensor: EngineTensor, *, batching: bool) -> ModelTensor:
    """As a client sees it. As in Triton, a shape tensor of a model with batches begins with the
    batch size, which clients leave out."""
    shape = tensor.shape
    if tensor.is_shape_tensor and batching:
        if len(shape) != 1:
            raise _shape_tensor_refused(config, tensor)
        shape = (-1, shape[0] - 1)
    return ModelTensor(tensor.name, tensor.datatype, shape)


def _shape_tensor_refused(config: ModelConfig, tensor: EngineTensor) -> InvalidConfig:
    return InvalidConfig(
        f"model '{config.name}': shape tensor '{tensor.name}' has shape {list(tensor.shape)}; in a "
        "model with batches only inputs with one dimension can be shape tensors: set "
        "max_batch_size: 0"
    )
