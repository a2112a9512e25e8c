"""Makes a plan of an ONNX model, with its profiles and the note that says what it takes."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivet.backends.api import InvalidConfig, LoadFailed
from trivet.backends.api.content import describe_content
from trivet.backends.tensorrt.description import (
    Description,
    EngineTensor,
    Profile,
    note_of,
    refuse_type,
)
from trivet.backends.tensorrt.library import TensorRt, first_reason
from trivet.backends.tensorrt.settings import BuildSettings, plan_profiles


def build_plan(
    library: TensorRt, onnx: Path, plan: Path, given: Mapping[str, Any], capability: str = ""
) -> str:
    """Writes the plan; returns what was made. `capability`: of the GPU that it is built on.

    Raises InvalidConfig, LoadFailed.
    """
    settings = BuildSettings.read(given)
    started_s = time.monotonic()
    builder = library.trt.Builder(library.logger)
    if builder is None:
        raise LoadFailed(f"{library.title} cannot build here: it needs an NVIDIA driver")
    network = _parse(library, builder, onnx, settings)
    inputs = [_tensor(library, network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [_tensor(library, network.get_output(index)) for index in range(network.num_outputs)]
    profiles = plan_profiles(settings, inputs)
    config = builder.create_builder_config()
    _add_profiles(library, builder, config, profiles, inputs)
    capabilities = _configure(library, config, settings) or ([capability] if capability else [])
    with library.listening() as errors:
        serialised = builder.build_serialized_network(network, config)
        reason = first_reason(errors)
    if serialised is None:
        raise LoadFailed(f"'{onnx.name}' could not be built by {library.title}: {_explain(reason)}")
    description = Description(
        tuple(inputs), tuple(outputs), tuple(profiles), 0, library.title, tuple(capabilities)
    )
    _write(plan, bytes(serialised), description)
    return _report(plan, description, time.monotonic() - started_s)


def _parse(library: TensorRt, builder: Any, onnx: Path, settings: BuildSettings) -> Any:
    trt = library.trt
    flags = 0
    if not (settings.fp16 or settings.bf16) or library.is_rtx:
        # TensorRT 10 and later: the types of the model are those of the engine.
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(library.logger, "")
    parser = trt.OnnxParser(network, library.logger)
    with library.listening() as errors:
        is_parsed = parser.parse_from_file(str(onnx))
        reason = first_reason(errors)
    if not is_parsed:
        faults = [parser.get_error(index) for index in range(parser.num_errors)]
        told = "; ".join(f"{_node(fault)}{fault.desc()}" for fault in faults[:4]) or reason
        raise LoadFailed(
            f"'{onnx.name}' could not be read by {library.title} (it is {describe_content(onnx)}): "
            f"{told}"
        )
    return network


def _node(fault: Any) -> str:
    name, operator = fault.node_name(), fault.node_operator()
    return f"node '{name}' ({operator}): " if name or operator else ""


def _tensor(library: TensorRt, tensor: Any) -> EngineTensor:
    datatype = library.datatype(tensor.dtype)
    if datatype is None:
        raise refuse_type(tensor.name, tensor.dtype.name)
    return EngineTensor(tensor.name, datatype, tuple(tensor.shape), bool(tensor.is_shape_tensor))


def _add_profiles(
    library: TensorRt, builder: Any, config: Any, profiles: list[Profile],
    inputs: list[EngineTensor],
) -> None:  # fmt: skip
    shape_tensors = {tensor.name for tensor in inputs if tensor.is_shape_tensor}
    for number, profile in enumerate(profiles):
        made = builder.create_optimization_profile()
        for name, allowed in profile.items():
            values = (allowed.low, allowed.best, allowed.high)
            if name in shape_tensors:
                made.set_shape_input(name, *map(list, values))
            else:
                made.set_shape(name, *values)
        with library.listening() as errors:
            index = config.add_optimization_profile(made)
            reason = first_reason(errors)
        if index < 0:
            raise InvalidConfig(f"profile {number} is refused by {library.title}: {reason}")


def _configure(library: TensorRt, config: Any, settings: BuildSettings) -> list[str]:
    """Sets flags and limits; returns the compute capabilities that were asked for."""
    trt = library.trt
    for wanted, flag in (
        (settings.fp16, "FP16"),
        (settings.bf16, "BF16"),
        (settings.version_compatible, "VERSION_COMPATIBLE"),
    ):
        if not wanted:
            continue
        if not hasattr(trt.BuilderFlag, flag):
            raise InvalidConfig(
                f"{library.title} takes types from the model alone and has no {flag}: convert the "
                "ONNX model to it, and leave the setting out"
            )
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.workspace_bytes:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.optimization_level >= 0:
        config.builder_optimization_level = settings.optimization_level
    if settings.compute_capabilities:
        _set_capabilities(library, config, settings)
    return list(settings.compute_capabilities)


def _set_capabilities(library: TensorRt, config: Any, settings: BuildSettings) -> None:
    known = _capabilities(library)
    for name in settings.compute_capabilities:
        if name not in known:
            raise InvalidConfig(
                f"{library.title} cannot build for compute capability '{name}', only for "
                f"{', '.join(known) or 'the GPU that it runs on'}"
            )
    config.num_compute_capabilities = len(settings.compute_capabilities)
    for index, name in enumerate(settings.compute_capabilities):
        config.set_compute_capability(known[name], index)


def _capabilities(library: TensorRt) -> dict[str, Any]:
    """ "8.9" -> ComputeCapability.SM89."""
    kinds = getattr(library.trt, "ComputeCapability", None)
    members = {} if kinds is None else dict(kinds.__members__)
    return {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in members.items()
        if name.startswith("SM") and name[2:].isdecimal()
    }


def _explain(reason: str) -> str:
    if "libnvinfer_lean" in reason:
        return (
            f"{reason}; version-compatible engines carry the lean runtime: install "
            "tensorrt-lean-cu13, or leave --version-compatible out"
        )
    if "cudaError 35" in reason:
        return f"{reason}; it needs an NVIDIA driver to try kernels (nvidia-smi shows it)"
    return reason


def _write(plan: Path, content: bytes, description: Description) -> None:
    """The note first: a server that sees the plan finds it. Both appear at once."""
    for path, data in ((note_of(plan), description.to_json().encode()), (plan, content)):
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        os.replace(part, path)  # noqa: PTH105 - over a file that is there


def _report(plan: Path, description: Description, seconds: float) -> str:
    lines = [
        f"{plan}: {plan.stat().st_size} bytes, made by {description.made_by} in {seconds:.1f} s"
    ]
    for role, tensors in (("input", description.inputs), ("output", description.outputs)):
        lines += [f"  {role} {t.name} {t.datatype.value} {list(t.shape)}" for t in tensors]
    for number, profile in enumerate(description.profiles):
        ranges = (
            f"{name} {list(r.low)} {list(r.best)} {list(r.high)}" for name, r in profile.items()
        )
        lines.append(f"  profile {number} (min opt max): {'; '.join(ranges)}")
    for_gpus = ", ".join(description.compute_capabilities) or "any that it knows"
    lines.append(f"  for GPUs of compute capability: {for_gpus}")
    return "\n".join(lines)
