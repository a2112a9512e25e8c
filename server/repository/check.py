"""What a complete config must fulfil. Every failure names the field, the value and the limit."""

from collections.abc import Iterator
from math import prod
from pathlib import PurePosixPath

from trivet.backends.api import About, InvalidConfig
from trivet.protos.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelInput,
    ModelOutput,
    ModelQueuePolicy,
)
from trivet.server.repository.check_ragged import ragged_faults
from trivet.server.repository.check_sequences import sequence_faults

MAX_INSTANCES = 1024
MAX_WARMUP_BYTES = 8 << 30
"""Of one warm-up tensor."""
_LARGEST_ELEMENT_BYTES = 8


def check(config: ModelConfig, about: About | None = None) -> None:
    """Raises InvalidConfig with the first fault. `about`: the model's backend, if known."""
    for fault in faults(config, about):
        raise InvalidConfig(f"model '{config.name}': {fault}")


def faults(config: ModelConfig, about: About | None = None) -> Iterator[str]:
    """Everything that is wrong with a config, in the order of its fields."""
    if config.max_batch_size < 0:
        yield f"max_batch_size must be 0 or more, got {config.max_batch_size}"
    yield from _version_faults(config)
    yield from _tensor_faults(config)
    yield from _batching_faults(config)
    yield from ragged_faults(config, about)
    yield from sequence_faults(config)
    yield from _group_faults(config)
    yield from _agent_faults(config)
    yield from _cache_faults(config)
    yield from _warmup_faults(config)
    for name in (config.default_model_filename, *config.cc_model_filenames.values()):
        if name and not _stays_inside(name):
            yield f"default_model_filename '{name}' must be a path inside the version folder"


def _version_faults(config: ModelConfig) -> Iterator[str]:
    policy = config.version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "specific" and not policy.specific.versions:
        yield "version_policy specific must list at least one version"
    for version in policy.specific.versions:
        if version < 1:
            yield f"version_policy specific has version {version}; versions start at 1"


def _tensor_faults(config: ModelConfig) -> Iterator[str]:
    for kind, tensors in (("input", config.input), ("output", config.output)):
        seen: set[str] = set()
        for tensor in tensors:
            where = f"{kind} '{tensor.name}'"
            if not tensor.name:
                yield f"an {kind} has no name"
            if tensor.name in seen:
                yield f"{where} is configured twice"
            seen.add(tensor.name)
            if tensor.data_type == DataType.TYPE_INVALID:
                yield f"{where} must specify a data_type"
            yield from _dims_faults(config, where, tensor)
    for output in config.output:
        if output.label_filename and not _stays_inside(output.label_filename):
            yield (
                f"output '{output.name}' has label_filename '{output.label_filename}', which must "
                "be a path inside the model's folder"
            )


def _dims_faults(
    config: ModelConfig, where: str, tensor: ModelInput | ModelOutput
) -> Iterator[str]:
    if not tensor.dims and (config.max_batch_size > 0 or tensor.HasField("reshape")):
        yield f"{where} must specify dims; for a model of single values use dims [1] and reshape"
    for dim in tensor.dims:
        if dim == 0 or dim < -1:
            yield f"{where} has dimension {dim}; dimensions are positive, or -1 for any size"
    is_image = isinstance(tensor, ModelInput) and tensor.format != ModelInput.FORMAT_NONE
    if is_image and len(tensor.dims) != 3:
        yield f"{where} has a format of images, which needs 3 dims, got {list(tensor.dims)}"
    if not tensor.HasField("reshape"):
        return
    shape = tensor.reshape.shape
    for dim in shape:
        if dim == 0 or dim < -1:
            yield f"{where} has reshape dimension {dim}; dimensions are positive, or -1"
    if list(tensor.dims).count(-1) != list(shape).count(-1):
        yield f"{where} must have as many -1 in reshape {list(shape)} as in dims"
    if prod(dim for dim in shape if dim > 0) != prod(dim for dim in tensor.dims if dim > 0):
        yield f"{where} has reshape {list(shape)} of another size than dims {list(tensor.dims)}"


def _batching_faults(config: ModelConfig) -> Iterator[str]:
    if config.WhichOneof("scheduling_choice") != "dynamic_batching":
        return
    batching = config.dynamic_batching
    for size in batching.preferred_batch_size:
        if not 0 < size <= max(config.max_batch_size, 1):
            yield (
                f"dynamic batching preferred size must be positive and <= max_batch_size "
                f"{config.max_batch_size}, got {size}"
            )
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        yield f"default_priority_level must be from 1 to priority_levels {levels}, got {default}"
    for level in batching.priority_queue_policy:
        if not 1 <= level <= levels:
            yield f"priority_queue_policy for level {level}, but levels are 1 to {levels}"
    if batching.preserve_ordering:
        yield from _ordering_faults(config)


def _ordering_faults(config: ModelConfig) -> Iterator[str]:
    batching = config.dynamic_batching
    if batching.priority_levels > 1:
        yield "preserve_ordering allows only one priority level"
    policies = (batching.default_queue_policy, *batching.priority_queue_policy.values())
    if any(policy.timeout_action == ModelQueuePolicy.DELAY for policy in policies):
        yield "preserve_ordering does not allow timeout_action DELAY"


def _group_faults(config: ModelConfig) -> Iterator[str]:
    total = 0
    for group in config.instance_group:
        total += group.count * max(1, len(group.gpus))
        if group.count < 0:
            yield f"instance_group '{group.name}' has count {group.count}; it must be 1 or more"
    if total > MAX_INSTANCES:
        yield f"instance_group asks for {total} instances; at most {MAX_INSTANCES} are allowed"
    if config.instance_group and all(group.passive for group in config.instance_group):
        yield "every instance_group is passive: no instance would compute a request"


def _agent_faults(config: ModelConfig) -> Iterator[str]:
    """Agents check or change a model's files: to serve these without them would be another model,
    or one that should not be served."""
    names = [agent.name for agent in config.model_repository_agents.agents]
    if names:
        yield (
            f"model_repository_agents asks for {', '.join(names)}, but no agents run here; check "
            "or decrypt the files before they are put into the repository, and leave it out"
        )


def _cache_faults(config: ModelConfig) -> Iterator[str]:
    if not config.response_cache.enable:
        return
    if config.model_transaction_policy.decoupled:
        yield "response_cache cannot be enabled for a decoupled model"
    if config.WhichOneof("scheduling_choice") == "sequence_batching":
        yield "response_cache cannot be enabled with sequence_batching: answers depend on state"


def _warmup_faults(config: ModelConfig) -> Iterator[str]:
    inputs = {tensor.name for tensor in config.input}
    for sample in config.model_warmup:
        where = f"model_warmup '{sample.name}'"
        if not sample.name:
            yield "a model_warmup has no name"
        if sample.batch_size > max(1, config.max_batch_size):
            yield (
                f"{where} has batch_size {sample.batch_size} over max_batch_size "
                f"{config.max_batch_size}"
            )
        for name, value in sample.inputs.items():
            if inputs and name not in inputs:
                yield f"{where} gives input '{name}', which the model does not have"
            if value.WhichOneof("input_data_type") is None:
                yield f"{where} input '{name}' needs zero_data, random_data or input_data_file"
            if value.data_type == DataType.TYPE_INVALID:
                yield f"{where} input '{name}' must specify a data_type"
            if any(dim < 0 for dim in value.dims):
                yield f"{where} input '{name}' must give all dims, got {list(value.dims)}"
            size_bytes = max(1, sample.batch_size) * prod(value.dims) * _LARGEST_ELEMENT_BYTES
            if size_bytes > MAX_WARMUP_BYTES:
                yield (
                    f"{where} input '{name}' has dims {list(value.dims)} and batch_size "
                    f"{sample.batch_size}, up to {size_bytes} bytes; at most {MAX_WARMUP_BYTES} "
                    "are allowed"
                )
            if value.input_data_file and not _stays_inside(value.input_data_file):
                yield f"{where} input '{name}' reads '{value.input_data_file}' outside warmup/"


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name
